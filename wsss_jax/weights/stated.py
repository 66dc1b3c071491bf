"""Refuses files of weights that state other settings than the network's.

Names and shapes of arrays do not tell everything: with heads of another width or another
activation, a transformer computes other features from the same arrays.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsss_jax.errors import UserError
from wsss_jax.files import read_json
from wsss_jax.models.base import Backbone
from wsss_jax.weights.checkpoint import HUGGING_FACE, Checkpoint

_OPEN_CLIP = "open_clip_"
"""What OpenCLIP puts before the name of its file, which lies beside Hugging Face's."""

_MOST = 1 << 20  # bytes


def other_settings(checkpoint: Checkpoint, backbone: Backbone) -> dict[str, Any]:
    """Returns the settings that a checkpoint states with other values than the backbone's.

    Raises:
      UserError: the ``config.json`` beside it is damaged.
    """
    stated = backbone.stated_settings(checkpoint.arrays, model_config(checkpoint.path))
    return others(stated, backbone)


def model_config(path: Path) -> Mapping[str, Any]:
    """Returns Hugging Face's ``config.json`` beside a file of weights with one of its names.

    Raises:
      UserError: it is damaged.
    """
    file = path.with_name("config.json")
    if not path.name.removeprefix(_OPEN_CLIP).startswith(HUGGING_FACE) or not file.exists():
        return {}
    found = read_json(file, "get it again, or remove it", most=_MOST)
    return found if isinstance(found, dict) else {}


def others(stated: Mapping[str, Any], network: object) -> dict[str, Any]:
    """Returns the settings of `stated` that `network` has with another value."""
    return {key: value for key, value in stated.items() if getattr(network, key, value) != value}


def refuse(stated: Mapping[str, Any], network: object, path: Path) -> None:
    """Refuses weights that state settings which are not those of `network`.

    Raises:
      UserError: there are such settings.
    """
    if stated:
        mine = ", ".join(f"{key}={getattr(network, key)}" for key in stated)
        theirs = ", ".join(f"{key}={value}" for key, value in stated.items())
        raise UserError(
            f"expected weights of a network with {mine}, found that {path}, or the config.json"
            f" beside it, states {theirs}: change these settings, or use other weights"
        )
