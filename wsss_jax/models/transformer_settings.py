"""Settings of transformers that files of weights state besides the names and shapes of arrays."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

_KEYS = {
    "activation": ("hidden_act", str),
    "patch": ("patch_size", int),
    "pretrain_size": ("image_size", int),
    "norm_epsilon": ("layer_norm_eps", float),
}
"""The names and types of settings in ``config.json``, by those of `Vit`."""

_TINY = 1e-12
"""What Hugging Face's ViT adds in layer norm, where the authors of its weights added 1e-6."""


def config_settings(
    config: Mapping[str, Any], tower: Literal["vision_config", "text_config"], width: int
) -> dict[str, Any]:
    """Returns the settings that Hugging Face's ``config.json`` states, under the names of `Vit`.

    Args:
      config: the content of the file, or nothing.
      tower: the part of the file that counts if it describes both towers of CLIP.
      width: the number of channels of the tokens.
    """
    part = config.get(tower, config)
    found = part if isinstance(part, dict) else {}
    settings: dict[str, Any] = {
        ours: found[theirs]
        for ours, (theirs, kind) in _KEYS.items()
        if isinstance(found.get(theirs), kind)
    }
    if settings.get("norm_epsilon") == _TINY:
        del settings["norm_epsilon"]
    heads = found.get("num_attention_heads")
    if isinstance(heads, int) and heads > 0:
        settings["head_width"] = width // heads
    return settings


def npz_settings(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the width of the heads, which kernels in files of AugReg and big_vision state."""
    for name, array in arrays.items():
        if name.endswith("/query/kernel") and array.ndim == 3:  # in, heads, channels of a head
            return {"head_width": array.shape[2]}
    return {}
