"""The backbone of every published file is found by its names, in the words of its program.

``tests/golden/published_names.json.xz`` was written by `tests.reference.published_names`.
"""

import json
import lzma
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.reference import authors_names
from tests.toys.interpreters import other_python
from tests.weights.test_architectures import arrays_of
from wsss_jax.errors import UserError
from wsss_jax.models.base import Backbone
from wsss_jax.settings import kind_of, read
from wsss_jax.weights.architectures import Guess, backbone_shapes, fitted, guess
from wsss_jax.weights.checkpoint import HEADS, without_prefixes
from wsss_jax.weights.import_weights import import_arrays
from wsss_jax.weights.published import PUBLISHED, Published

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDEN = REPOSITORY / "tests" / "golden" / "published_names.json.xz"

RECORDED = {
    **{f"efficientnet_lite{n}": f"efficientnet-lite{n}" for n in range(3)},
    **{n: f"torchvision {n}" for n in ("resnet50", "resnet101")},
    **{f"{n}_v2": f"torchvision {n}" for n in ("resnet50", "resnet101")},
    **{n: f"torchvision {n}" for n in ("vgg16", "vgg16_bn", "convnext_tiny", "convnext_small")},
    "mobilenet_v2_torchvision": "torchvision mobilenet_v2",
    "mobilenet_v2_torchvision_v2": "torchvision mobilenet_v2",
    **{f"deit_{n}": f"deit_{n}_patch16_224" for n in ("tiny", "small", "small_distilled", "base")},
    **{f"dino_{n}": f"dino {n} 16" for n in ("small", "base")},
    **{f"dino_{n}_8": f"dino {n} 8" for n in ("small", "base")},
    **{f"dinov2_{n}": f"dinov2 {n}" for n in ("small", "base")},
    **{f"dinov2_{n}_registers": f"dinov2 {n}_reg4" for n in ("small", "base")},
    **{f"augreg_{n}": f"augreg {n}" for n in ("small", "base")},
    **{f"clip_{n}": f"clip {n}" for n in ("base", "large")},
}
"""The recorded names of the files of the catalogue."""

AFFINITY = ("f8_3.weight", "f8_4.weight", "f8_5.weight", "f9.weight")
HEADS_OF: dict[str, tuple[str, ...]] = {
    "resnet38_seam": ("fc8.weight", "f8_3.weight", "f8_4.weight", "f9.weight"),
    "resnet38_aff_seam": AFFINITY,
    "resnet38_cls_psa": ("fc8.weight",),
    "resnet38_aff_psa": AFFINITY,
    "vgg16_cls_psa": ("fc8.weight",),
    "vgg16_aff_psa": (*AFFINITY, "gn8_3.weight", "gn8_3.bias"),
}
"""What follows our names in the files of PSA's and SEAM's authors."""

QUICK = ("vgg16_bn", "vgg16_cls_psa", "convnext_tiny", "dino_small", "augreg_small")


def recorded() -> dict[str, dict[str, list[int]]]:
    with lzma.open(GOLDEN, "rt") as file:
        return json.load(file)


def light(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Arrays that take no memory."""
    return {n: np.broadcast_to(np.float32(0), shape) for n, shape in shapes.items()}


def published_arrays(one: Published) -> dict[str, np.ndarray]:
    """The arrays of a published file as `read_checkpoint` gives them."""
    if one.name in RECORDED:
        return light(recorded()[RECORDED[one.name]])
    arrays = arrays_of(read(Backbone, one.backbone))
    if one.name == "resnet38":
        named = {theirs: arrays[ours] for ours, theirs in authors_names.mxnet(arrays).items()}
        return named | light({"arg:linear1000_weight": [1000, 4096], "arg:linear1000_bias": [1000]})
    if one.name == "deeplabv1_resnet38_seam":
        heads = [f"{layer}.weight" for layer in authors_names.DEEPLAB_V1]
        found = authors_names.deeplab_v1(arrays | light({name: [4, 4, 1, 1] for name in heads}))
        return dict(without_prefixes(found, [])[0])
    return arrays | light({name: [4, 4, 1, 1] for name in HEADS_OF[one.name]})


def fits(found: Guess | None, section: Any) -> bool:
    """Whether one of the backbones has the settings of `section` that files tell."""
    kind = kind_of(Backbone, section["name"])
    told = {k: v for k, v in section.items() if k not in ("name", *kind.not_in_files)}
    return found is not None and any(
        type(one) is kind and all(getattr(one, key) == value for key, value in told.items())
        for one in (found.backbone, *found.also)
    )


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(p, id=p.name, marks=() if p.name in QUICK else pytest.mark.slow)
        for p in PUBLISHED
    ],
)
def test_files_of_the_catalogue(one: Published):
    arrays = published_arrays(one)
    found = guess(arrays)
    assert found is not None and found.certain and not found.compared.resized
    assert fits(found, one.backbone), (found.backbone, *found.also)
    known = read(Backbone, one.backbone)
    found = guess(arrays, known)
    assert found is not None and found.certain and found.backbone == known
    if one.name in RECORDED:
        numbers = sum(array.size for array in arrays.values())
        # A file also has about half a kilobyte of names and padding for each array.
        megabytes = 4e-6 * numbers + 5e-4 * len(arrays)
        assert megabytes == pytest.approx(one.megabytes, rel=0.01)


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("timm mobilenetv2_100", dict(name="mobilenet_v2", form="torchvision")),
        pytest.param(
            "timm efficientnet_lite1",
            dict(name="efficientnet_lite", variant=1),
            marks=pytest.mark.slow,
        ),
        ("timm vgg16", dict(name="vgg16", pixels="torchvision", batch_norm=False)),
        pytest.param("timm vgg16_bn", dict(name="vgg16", batch_norm=True), marks=pytest.mark.slow),
        pytest.param("timm convnext_tiny", dict(name="convnext"), marks=pytest.mark.slow),
        ("timm deit3_small_patch16_224", dict(name="vit", layer_scale=1e-6, pretrain_size=224)),
        pytest.param(
            "timm vit_huge_patch14_224",
            dict(name="vit", width=1280, depth=32, patch=14, pretrain_size=224),
            marks=pytest.mark.slow,
        ),
        ("torchvision fcn_resnet50", dict(name="resnet", depth=50)),
    ],
)
def test_other_files(name: str, section: dict[str, Any]):
    arrays, prefixes = without_prefixes(light(recorded()[name]), [])
    assert prefixes == (["backbone."] if "fcn" in name else [])
    found = guess(arrays)
    assert found is not None and found.certain and fits(found, section)


@pytest.mark.slow
def test_a_deeper_network_is_none_that_is_known():
    arrays = light(recorded()["torchvision resnet152"])
    found = guess(arrays)
    assert found is not None and fits(found, dict(name="resnet", depth=101))
    assert not found.certain and found.share < 0.7 and found.heads == ("fc.bias", "fc.weight")
    assert "layer2.4.conv1.weight" in found.foreign and not found.compared.missing
    with pytest.raises(UserError, match=r"255 unexpected: layer2\.4\.bn1\.bias"):
        shapes = backbone_shapes(found.backbone)
        import_arrays(shapes, arrays, backbone=found.backbone, ignore=HEADS)


def test_another_network_than_vgg16_keeps_its_names():
    """ConvNeXt and FCN have a ``classifier.0`` too."""
    for name in ("torchvision convnext_tiny", "torchvision fcn_resnet50"):
        arrays, _ = without_prefixes(light(recorded()[name]), [])
        found = fitted(read(Backbone, dict(name="vgg16")), arrays)
        assert not found.compared.values and "classifier.0.weight" in found.heads


def test_the_recorded_names_are_those_of_the_programs(tmp_path: Path):
    python = other_python("WSSS_TORCH_PYTHON", "efficientnet_lite_pytorch")
    command = [python, "-m", "tests.reference.published_names", str(tmp_path / "now.json.xz")]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, timeout=300)
    with lzma.open(tmp_path / "now.json.xz", "rt") as file:
        assert json.load(file) == recorded()
