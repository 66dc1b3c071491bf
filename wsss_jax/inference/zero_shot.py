"""Features of class names and images from CLIP (Radford et al., ICML 2021), and their similarity.

Weights are files with both towers of CLIP as OpenAI, OpenCLIP or Hugging Face publish them. Sizes
follow from the shapes of their arrays.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from wsss_jax.errors import UserError
from wsss_jax.models.clip_image import ClipImage
from wsss_jax.models.clip_text import ClipText
from wsss_jax.models.transformer import Activation
from wsss_jax.models.transformer_names import clip_text_arrays, timm_arrays
from wsss_jax.models.transformer_settings import config_settings
from wsss_jax.weights.checkpoint import read_checkpoint
from wsss_jax.weights.clip_tokenizer import ClipTokenizer
from wsss_jax.weights.import_weights import import_arrays
from wsss_jax.weights.stated import model_config, other_settings, others, refuse

Arrays = Mapping[str, np.ndarray]

TEMPLATES = ("a photo of a {}.",)
"""The text that CLIP's paper makes of a class name."""


def text_features(
    class_names: Sequence[str],
    weights: Path,
    *,
    templates: Sequence[str] = TEMPLATES,
    activation: Activation = "quick_gelu",
    head_width: int = 64,
) -> Float32[np.ndarray, "c d"]:
    """Returns the features of class names, of length 1, averaged over templates as in the paper.

    Args:
      class_names: the names as words, such as ``potted plant``.
      weights: the file or folder of the weights. The vocabulary is taken from the same folder or
        from an installed OpenCLIP.
      templates: texts with ``{}`` in the place of the name.
      activation: ``gelu`` for most weights of OpenCLIP, ``quick_gelu`` for those of OpenAI.
      head_width: the number of channels of an attention head.

    Raises:
      UserError: there is no name or template, a template has not one ``{}``, the weights are not
        CLIP's, a text is too long, or the vocabulary or a library is missing.
    """
    if not class_names or not templates:
        raise UserError("expected at least one class name and one template, found none")
    for template in templates:
        if template.count("{}") != 1:
            raise UserError(f"expected one {{}} in a template, found {template!r}: change it")
    texts = [template.replace("{}", name) for name in class_names for template in templates]
    tower, variables = text_tower(weights, activation=activation, head_width=head_width)
    tokenizer = ClipTokenizer(weights if weights.is_dir() else weights.parent)
    if tokenizer.end != tower.vocabulary - 1:
        raise UserError(
            f"expected a vocabulary of {tower.vocabulary} tokens for {weights}, found one of"
            f" {tokenizer.end + 1}: use the one that was published with the weights"
        )
    features: Any = jax.jit(tower.apply)(variables, tokenizer(texts, tower.context))
    features = _unit(features).reshape(len(class_names), len(templates), -1)
    return np.asarray(_unit(features.mean(1)))


def image_features(
    images: UInt8[np.ndarray, "b h w 3"],
    weights: Path,
    *,
    activation: Activation = "quick_gelu",
    head_width: int = 64,
) -> Float32[np.ndarray, "b d"]:
    """Returns the features of RGB images, of length 1.

    Args:
      images: images of any size. CLIP's own evaluation resizes the shorter side to that of the
        pretraining and crops the center.
      weights: the file or folder of the weights.
      activation: see `text_features`.
      head_width: the number of channels of an attention head.

    Raises:
      UserError: the weights are not those of a vision transformer of CLIP.
    """
    tower, variables = image_tower(weights, activation=activation, head_width=head_width)
    mean, std = (np.asarray(values, np.float32) for values in (tower.pixel_mean, tower.pixel_std))
    x = (images.astype(np.float32) - mean) / std
    found: Any = jax.jit(tower.apply)(variables, x)
    return np.asarray(_unit(found["class_embedding"]))


def text_tower(
    weights: Path, *, activation: Activation = "quick_gelu", head_width: int = 64
) -> tuple[ClipText, Any]:
    """Returns the text tower of a file and its variables; see `text_features`.

    Raises:
      UserError: the weights are not those of CLIP.
    """
    checkpoint = read_checkpoint(weights)
    arrays = clip_text_arrays(checkpoint.arrays)
    shapes = _shapes(arrays, ("token_embedding.weight", "pos_embed", "head.weight"), weights)
    (vocabulary, width), (_, context, _), (embedding, _) = shapes
    tower = ClipText(vocabulary, context, width, _depth(arrays), embedding, head_width, activation)
    stated = config_settings(model_config(checkpoint.path), "text_config", width)
    refuse(others(stated, tower), tower, checkpoint.path)
    named: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if name == "token_embedding.weight":  # the import transposes matrices
            name, array = "token_embedding", array.T
        name = re.sub(r"^blocks\.(\d+)\.", r"blocks_\1.", name)
        named[re.sub(r"\.(attn|mlp)\.", r".\1_", name)] = array
    tokens = jax.ShapeDtypeStruct((1, context), jnp.int32)
    empty: Any = jax.eval_shape(tower.init, jax.random.key(0), tokens)
    return tower, import_arrays(empty, named, source=str(weights))


def image_tower(
    weights: Path, *, activation: Activation = "quick_gelu", head_width: int = 64
) -> tuple[ClipImage, Any]:
    """Returns the image tower of a file, with its projection, and its variables.

    Raises:
      UserError: the weights are not those of a vision transformer of CLIP.
    """
    checkpoint = read_checkpoint(weights)
    arrays = timm_arrays(checkpoint.arrays)
    needed = ("patch_embed.proj.weight", "pos_embed", "head.weight")
    (width, _, patch, _), (_, tokens, _), (embedding, _) = _shapes(arrays, needed, weights)
    tower = ClipImage(
        patch=patch,
        width=width,
        depth=_depth(arrays),
        head_width=head_width,
        pretrain_size=patch * math.isqrt(tokens - 1),
        embedding=embedding,
        activation=activation,
    )
    refuse(other_settings(checkpoint, tower), tower, checkpoint.path)
    x = jax.ShapeDtypeStruct((1, patch, patch, 3), jnp.float32)
    shapes: Any = jax.eval_shape(tower.init, jax.random.key(0), x)
    wrapped = {"params": {"backbone": shapes["params"]}}
    found = import_arrays(wrapped, arrays, backbone=tower, source=str(weights))
    return tower, {"params": found["params"]["backbone"]}


def class_scores(
    images: Float[Array, "b d"] | Float[np.ndarray, "b d"],
    texts: Float[Array, "c d"] | Float[np.ndarray, "c d"],
    logit_scale: float = 100.0,
) -> Float[Array, "b c"]:
    """Returns the probability of each class for each image, given features of length 1.

    `logit_scale` is 100 in the weights of OpenAI, where the training limits it to this value.
    """
    similarity = jnp.einsum("bd,cd->bc", images, texts, precision=jax.lax.Precision.HIGHEST)
    return jax.nn.softmax(logit_scale * similarity)


def _unit(x: Any) -> Any:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def _shapes(arrays: Arrays, names: Sequence[str], weights: Path) -> list[tuple[int, ...]]:
    """Returns the shapes of the arrays that tell the sizes of a tower."""
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UserError(
            f"expected the transformers of CLIP in {weights}, found no {', '.join(missing)}: use a"
            " file with both towers and their projections"
        )
    return [arrays[name].shape for name in names]


def _depth(arrays: Arrays) -> int:
    return len({match[1] for name in arrays if (match := re.match(r"blocks\.(\d+)\.", name))})
