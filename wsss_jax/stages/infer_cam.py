"""Multi-scale, flipped activation maps of every image: ``cams/<id>.npz``."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from wsss_jax.data.formats.cam_files import write_cams
from wsss_jax.errors import UserError
from wsss_jax.host.host_memory import keep_freed_memory
from wsss_jax.inference.multi_scale import (
    MultiScale,
    chunks,
    load_network,
    summed_maps,
)
from wsss_jax.stages.base import Context, Needs, expect

_EPSILON = 1e-5  # of the published programs


MAKES = ("cams/",)


def check(config: ConfigDict, needs: Needs) -> None:
    """Refuses what cannot work; see `wsss_jax.stages.base`."""
    expect(needs, "checkpoint", "weights.npz")
    _settings(config.to_dict())


def _settings(values: dict[str, Any]) -> tuple[MultiScale, str]:
    how = MultiScale(**{k: v for k, v in values.items() if k in MultiScale.__dataclass_fields__})
    kind = values.get("normalise", "min_max")
    if kind not in ("min_max", "max"):
        raise UserError(f"expected normalise to be min_max or max, found {kind!r}: change it")
    return how, kind


def run(ctx: Context, config: ConfigDict, inputs: dict[str, Path]) -> dict[str, Any]:
    """Runs the stage; see `wsss_jax.stages`.

    Takes the network of the need ``checkpoint``. Only the classes of an image's label get a map.
    Settings: ``split``; ``output`` (which of the method's predictions, ``cam``); ``normalise``:
    ``min_max`` (SEAM) or ``max`` (PSA, SSENet); and the fields of `MultiScale`.
    """
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    settings: dict[str, Any] = config.to_dict()
    source = ctx.source(settings["split"])
    folder = ctx.stage_dir / "cams"
    folder.mkdir(exist_ok=True)
    how, kind = _settings(settings)
    sizes = source.sizes
    buckets = how.buckets(set(sizes))
    output = settings.get("output", "cam")
    network = load_network(inputs["checkpoint"], len(source.classes), output)
    mine = range(ctx.process_index, len(source), ctx.process_count)
    inferred = 0
    with ctx.progress(len(mine), f"maps of {settings['split']}") as bar:
        for chunk in chunks(mine, sizes):
            missing = {i for i in chunk if not (folder / f"{source.ids[i]}.npz").exists()}
            if missing:
                maps = summed_maps(
                    source, chunk, lambda y: np.flatnonzero(y), network, how, buckets
                )
                for index, keys, total in maps:
                    if index in missing:
                        path = folder / f"{source.ids[index]}.npz"
                        write_cams(path, keys, normalise(total, kind))
                inferred += len(missing)
            bar.update(len(chunk))
    return {
        "images": len(source),
        "inferred": inferred,
        "scales": list(how.scales),
        "flip": how.flip,
        "output": output,
        "buckets": [list(b) for b in buckets],
    }


def normalise(total: Float[np.ndarray, "k h w"], kind: str) -> Float[np.ndarray, "k h w"]:
    """Summed maps between 0 and 1; a class without response stays 0.

    ``max``: v/(max + ε). ``min_max``: (v − min − ε)/(max − min + ε), zero below min + ε.
    """
    cam = np.maximum(total, 0)
    if not len(cam):
        return cam
    high = cam.max((1, 2), keepdims=True)
    if kind == "max":
        return cam / (high + _EPSILON)
    low = cam.min((1, 2), keepdims=True)
    return np.maximum(cam - low - _EPSILON, 0) / (high - low + _EPSILON)
