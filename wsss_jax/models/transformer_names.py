"""Gives the arrays of published vision transformers, and of CLIP's text tower, timm's names.

The names that are known are those of timm (which the files of DeiT and DINO have, too), DINOv2,
OpenAI's CLIP and OpenCLIP, Hugging Face's ViT, DeiT, DINOv2 and CLIP (as they lie in files and as
its modules have them), and the ``.npz`` files of AugReg and big_vision.
"""

import math
import re
from collections.abc import Mapping

import numpy as np

Arrays = Mapping[str, np.ndarray]

_OTHERS = (
    r".*\b(mask_token|position_ids)|.*\bpooler\..*|(cls_|distillation_)?classifier\..*"
    r"|input_resolution|context_length|vocab_size"
)
"""Arrays of pretraining and classification, and the sizes in OpenAI's files, that are left out."""

_NAMES = (
    (r"^(?:vit|deit|dinov2(?:_with_registers)?|vision_model|visual|text_model|text)\.", ""),
    (r"^embeddings\.", ""),
    (r"^class_embedding$", "cls_token"),
    (r"^distillation_token$", "dist_token"),
    (r"^register_tokens$", "reg_token"),
    (r"^(?:position_embeddings|position_embedding\.weight|positional_embedding)$", "pos_embed"),
    (r"^(?:patch_embeddings\.projection|patch_embedding|conv1)\.", "patch_embed.proj."),
    (r"^(?:ln_pre|pre_layrnorm)\.", "norm_pre."),
    (r"^(?:ln_post|post_layernorm|layernorm|ln_final|final_layer_norm)\.", "norm."),
    (r"^(?:visual|text)_projection\.", "head."),
    (r"^(?:(?:encoder\.)?layers?|transformer\.resblocks|blocks\.\d+)\.(?=\d+\.)", "blocks."),
    (r"\.(?:ln_1|layer_norm1|layernorm_before)\.", ".norm1."),
    (r"\.(?:ln_2|layer_norm2|layernorm_after)\.", ".norm2."),
    (r"\.attn\.in_proj_", ".attn.qkv."),
    (r"\.(?:attention(?:\.attention)?|self_attn)\.(query|key|value|[qkv]_proj)\.", r".attn.\1."),
    (r"\.attention\.(?:output\.dense|o_proj)\.|\.(?:self_)?attn\.out_proj\.", ".attn.proj."),
    (r"\.(?:mlp\.c_fc|intermediate\.dense)\.", ".mlp.fc1."),
    (r"\.(?:mlp\.c_proj|output\.dense)\.", ".mlp.fc2."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
)
"""What becomes of a name, one pattern after the other."""

_QKV = re.compile(r"(.*\.attn\.)(query|key|value|[qkv]_proj)\.(weight|bias)")

_NPZ_NAMES = (
    (r"^(opt/target|params)/(img/)?", ""),
    (r"^cls$", "cls_token"),
    (r"^(Transformer/posembed_input/)?pos_embedding$", "pos_embed"),
    (r"^embedding/", "patch_embed/proj/"),
    (r"^Transformer/encoderblock_(\d+)/", r"blocks/\1/"),
    (r"^Transformer/encoder_norm/", "norm/"),
    (r"/MultiHeadDotProductAttention_\d/(query|key|value)/", r"/attn/\1/"),
    (r"/MultiHeadDotProductAttention_\d/out/", "/attn/proj/"),
    (r"/MlpBlock_\d/Dense_0/", "/mlp/fc1/"),
    (r"/MlpBlock_\d/Dense_1/", "/mlp/fc2/"),
    (r"/LayerNorm_0/", "/norm1/"),
    (r"/LayerNorm_[12]/", "/norm2/"),
    (r"/(kernel|scale)$", "/weight"),
    (r"/", "."),
)


def timm_arrays(arrays: Arrays) -> dict[str, np.ndarray]:
    """Returns the arrays of a vision transformer under timm's names, in PyTorch's layout.

    Separate queries, keys and values are joined. Other arrays are the same or views. Arrays of
    other names stay as they are, and those that no image tower has are left out.
    """
    if any(name.endswith("embedding/kernel") for name in arrays):
        arrays = _from_npz(arrays)
    for tower in ("visual.", "vision_model."):  # a file with both towers of CLIP
        if any(name.startswith(tower) for name in arrays):
            names = (tower, "visual_projection.")
            arrays = {n: array for n, array in arrays.items() if n.startswith(names)}
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if re.fullmatch(_OTHERS, name):
            continue
        known = _replaced(name, _NAMES)
        if known == "proj":  # OpenAI's projection is multiplied from the right
            known, array = "head.weight", array.T
        found[known] = array
    return _shaped(_joined(found))


def clip_text_arrays(arrays: Arrays) -> dict[str, np.ndarray]:
    """Returns the arrays of CLIP's text tower under the names that timm gives those of images.

    These are ``token_embedding.weight``, ``pos_embed`` [1, n, d], ``blocks.0.…``, ``norm.…`` and
    ``head.weight``, the projection. `arrays` may hold the image tower, too.
    """
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        others = ("visual.", "visual_projection.", "vision_model.", "logit_")
        if name.startswith(others) or re.fullmatch(_OTHERS, name):
            continue
        known = _replaced(name, _NAMES)
        if known == "text_projection":  # OpenAI's is multiplied from the right
            known, array = "head.weight", array.T
        found[known] = array[None] if known == "pos_embed" else array
    return _joined(found)


def _replaced(name: str, names: tuple[tuple[str, str], ...]) -> str:
    for pattern, new in names:
        name = re.sub(pattern, new, name)
    return name


def _from_npz(arrays: Arrays) -> dict[str, np.ndarray]:
    """Returns the arrays of a file of Flax's modules in PyTorch's layout."""
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        known = _replaced(name, _NPZ_NAMES)
        if known.endswith(".attn.proj.weight"):  # heads, channels of a head, out
            array = array.reshape(-1, array.shape[-1])
        elif _QKV.fullmatch(known):  # (in,) heads, channels of a head
            array = array.reshape(*array.shape[:-2], -1)
        if known.endswith(".weight") and array.ndim in (2, 4):
            array = array.transpose((3, 2, 0, 1) if array.ndim == 4 else (1, 0))
        found[known] = array
    return found


def _joined(arrays: Arrays) -> dict[str, np.ndarray]:
    """Joins the query, key and value of each block."""
    found: dict[str, np.ndarray] = {}
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        match = _QKV.fullmatch(name)
        if match:
            parts.setdefault(f"{match[1]}qkv.{match[3]}", {})[match[2][0]] = array
        else:
            found[name] = array
    for name, part in parts.items():
        # A part that is missing is noticed as a joined array of another shape.
        found[name] = np.concatenate([part[key] for key in "qkv" if key in part])
    return found


def _shaped(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gives tokens and positions the axes of timm's files, and positions one of the class token."""
    for name in ("cls_token", "pos_embed"):
        if name in arrays:
            array = arrays[name]
            arrays[name] = array.reshape((1,) * (3 - array.ndim) + array.shape)
    positions = arrays.get("pos_embed")
    if positions is not None and math.isqrt(positions.shape[1]) ** 2 == positions.shape[1]:
        # The class token has no position in DeiT III and in timm's networks with registers.
        arrays["pos_embed"] = np.concatenate([np.zeros_like(positions[:, :1]), positions], 1)
    return arrays
