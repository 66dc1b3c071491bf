"""Names and shapes of the arrays in published files of weights, as their programs make them.

    PYTHON -m tests.reference.published_names tests/golden/published_names.json.xz

PYTHON is an interpreter with torch, torchvision, timm, transformers and efficientnet-lite-pytorch.
No array is made. The file holds, under the name of each file, its shapes by name.
"""

import json
import lzma
import re
import sys
from typing import Any

import efficientnet_lite_pytorch  # pyright: ignore[reportMissingImports]
import timm  # pyright: ignore[reportMissingImports]
import torch  # pyright: ignore[reportMissingImports]
import torchvision  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]

Shapes = dict[str, tuple[int, ...]]

TORCHVISION = ("mobilenet_v2", "resnet50", "resnet101", "resnet152", "vgg16", "vgg16_bn")
TORCHVISION += ("convnext_tiny", "convnext_small", "fcn_resnet50")
DEIT = ("tiny_patch16_224", "small_patch16_224", "small_distilled_patch16_224", "base_patch16_224")
TIMM = ("mobilenetv2_100", "efficientnet_lite0", "efficientnet_lite1", "vgg16", "vgg16_bn")
TIMM += ("convnext_tiny", "deit3_small_patch16_224", "vit_huge_patch14_224")


def shapes(module: Any) -> Shapes:
    return {name: tuple(array.shape) for name, array in module.state_dict().items()}


def backbone_alone(found: Shapes) -> Shapes:
    return {name: shape for name, shape in found.items() if not name.startswith("head")}


def dinov2(name: str) -> Shapes:
    """The names of Meta's files, which differ from timm's: the class token has a position."""
    found = backbone_alone(shapes(timm.create_model(name)))
    width = found["cls_token"][2]
    found["mask_token"] = (1, width)
    found["pos_embed"] = (1, 1 + 37**2, width)
    return {re.sub("^reg_token$", "register_tokens", key): shape for key, shape in found.items()}


def augreg(width: int, patch: int = 16, depth: int = 12, classes: int = 21843) -> Shapes:
    """A file of Flax's modules."""
    found: Shapes = {
        "cls": (1, 1, width),
        "embedding/kernel": (patch, patch, 3, width),
        "embedding/bias": (width,),
        "Transformer/posembed_input/pos_embedding": (1, 1 + (224 // patch) ** 2, width),
        "Transformer/encoder_norm/scale": (width,),
        "Transformer/encoder_norm/bias": (width,),
        "head/kernel": (width, classes),
        "head/bias": (classes,),
    }
    heads = width // 64
    for number in range(depth):
        block = f"Transformer/encoderblock_{number}"
        for part in ("query", "key", "value"):
            name = f"{block}/MultiHeadDotProductAttention_1/{part}"
            found |= {f"{name}/kernel": (width, heads, 64), f"{name}/bias": (heads, 64)}
        name = f"{block}/MultiHeadDotProductAttention_1/out"
        found |= {f"{name}/kernel": (heads, 64, width), f"{name}/bias": (width,)}
        for layer, into, out in ((0, width, 4 * width), (1, 4 * width, width)):
            name = f"{block}/MlpBlock_3/Dense_{layer}"
            found |= {f"{name}/kernel": (into, out), f"{name}/bias": (out,)}
        for layer in (0, 2):
            name = f"{block}/LayerNorm_{layer}"
            found |= {f"{name}/scale": (width,), f"{name}/bias": (width,)}
    return found


def clip(width: int, depth: int, patch: int, text_width: int) -> Shapes:
    """OpenAI's CLIP as Hugging Face published it in 2021, with its buffers of positions."""
    vision = dict(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=depth,
        num_attention_heads=width // 64,
        patch_size=patch,
    )
    text = dict(
        hidden_size=text_width,
        intermediate_size=4 * text_width,
        num_attention_heads=text_width // 64,
        num_hidden_layers=12,
    )
    config = transformers.CLIPConfig(
        vision_config=vision, text_config=text, projection_dim=text_width
    )
    found = shapes(transformers.CLIPModel(config))
    found["vision_model.embeddings.position_ids"] = (1, 1 + (224 // patch) ** 2)
    found["text_model.embeddings.position_ids"] = (1, 77)
    return found


def files() -> dict[str, Shapes]:
    """Returns the shapes in all files."""
    found: dict[str, Shapes] = {}
    for name in TORCHVISION:
        room = torchvision.models.segmentation if "fcn" in name else torchvision.models
        options = {"weights_backbone": None} if "fcn" in name else {}
        found[f"torchvision {name}"] = shapes(getattr(room, name)(weights=None, **options))
    for variant in range(3):
        name = f"efficientnet-lite{variant}"
        model = efficientnet_lite_pytorch.EfficientNet.from_name(name)
        found[name] = shapes(model)
    for name in DEIT:
        found[f"deit_{name}"] = shapes(timm.create_model(f"deit_{name}"))
    for size in ("small", "base"):
        for patch in (8, 16):
            model = timm.create_model(f"vit_{size}_patch{patch}_224.dino")
            found[f"dino {size} {patch}"] = backbone_alone(shapes(model))
        for kind in ("", "_reg4"):
            found[f"dinov2 {size}{kind}"] = dinov2(f"vit_{size}_patch14{kind}_dinov2")
    for name, width in (("small", 384), ("base", 768)):
        found[f"augreg {name}"] = augreg(width)
    found["clip base"] = clip(768, 12, 16, 512)
    found["clip large"] = clip(1024, 24, 14, 768)
    for name in TIMM:
        found[f"timm {name}"] = shapes(timm.create_model(name))
    return found


if __name__ == "__main__":
    with torch.device("meta"):
        everything = files()
    with lzma.open(sys.argv[1], "wt", preset=9) as file:
        json.dump(everything, file)
