"""How long stages took on this machine, so that a run can say how long the rest will take.

The file ``durations.json`` in the cache folder has the images and seconds of every kind of stage
that was finished here. A stage is of the same kind if its settings and the devices are the same.
Nothing is concluded for twice or half as many images, because starting and compiling take a time of
their own.
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from wsss_jax.errors import UserError
from wsss_jax.files import read_json, write_json
from wsss_jax.pipeline.graph import Node
from wsss_jax.pipeline.process import cache_folder

_MOST = 2000  # kinds of stages in the file; the oldest ones are dropped


def remember(node: Node, images: int, seconds: float) -> None:
    """Records that a stage took `seconds` for `images`. Nothing happens if that is impossible."""
    known = _read()
    kind = _kind(node)
    known.pop(kind, None)
    known[kind] = [_units(node, images), seconds]
    path = cache_folder() / "durations.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, dict(list(known.items())[-_MOST:]))
    except (OSError, UserError):  # The home is read-only, or the disk is full.
        pass


def expected(nodes: Sequence[Node], images: Mapping[str, int]) -> dict[str, float]:
    """Returns the seconds that stages will take, by name, for those that are known.

    Args:
      nodes: the stages.
      images: the number of images of each stage's splits, by the name of the stage.
    """
    known = _read()
    found: dict[str, float] = {}
    for node in nodes:
        before, seconds = known.get(_kind(node), (0, 0.0))
        now = _units(node, images[node.name])
        if before / 2 < now < before * 2:
            found[node.name] = seconds * now / before
    return found


def _kind(node: Node) -> str:
    # Where results come from and go to does not matter for the time.
    section = {k: v for k, v in node.section.items() if k not in ("needs", "split", "init_weights")}
    devices = jax.devices()
    parts = (section, devices[0].device_kind, len(devices), os.cpu_count())
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _units(node: Node, images: int) -> int:
    """Returns the images that the time is proportional to, or 1 if steps are counted."""
    return 1 if node.section.get("steps") else max(images, 1)


def _read() -> dict[str, Any]:
    try:
        found = read_json(cache_folder() / "durations.json")
    except Exception:  # There is none yet, or it is damaged; it is made anew.
        return {}
    good = isinstance(found, dict) and all(
        isinstance(one, list) and len(one) == 2 and all(map(_is_count, one))
        for one in found.values()
    )
    return found if good else {}


def _is_count(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= sys.float_info.max
