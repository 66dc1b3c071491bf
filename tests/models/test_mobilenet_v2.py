"""MobileNetV2: its size, its strides, dilation, and what its ImageNet weights recognize.

With the weights of the shared folder, top-1 of the center crop of 224 (short side 224) is a dog for
36 of the first 40 images of voc_animals' train_aug that show dogs only, and a cat for 25 of the
first 40 that show cats only (val: 38 and 25). An independent program found 34 and 26.
"""

from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests.reference.golden_weights import drawn_variables
from wsss_jax.data.augment import resize_image
from wsss_jax.data.class_names import VOC_CLASSES
from wsss_jax.data.images import decode_image
from wsss_jax.data.labels import read_label_file
from wsss_jax.methods.cam import Cam
from wsss_jax.models.mobilenet_v2 import MobileNetV2
from wsss_jax.weights.checkpoint import read_checkpoint
from wsss_jax.weights.import_weights import import_arrays

# It runs once: not worth optimizing.
QUICK: Any = {"xla_backend_optimization_level": 0}


def shapes(model: nn.Module, height: int = 64, width: int = 64, **options: Any) -> Any:
    """Shapes of (taps, variables)."""
    x = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
    return jax.eval_shape(model.init_with_output, jax.random.key(0), x, **options)


def test_parameters_are_those_of_torchvisions_features():
    _, variables = shapes(MobileNetV2())
    params: dict[str, Any] = traverse_util.flatten_dict(variables["params"], sep="/")
    assert sum(p.size for p in params.values()) == 2_223_872
    kernels = {p: v for p, v in params.items() if p.endswith("kernel")}
    assert len(kernels) == 52 and len(params) == 3 * 52
    assert sum(v.size for v in jax.tree.leaves(variables["batch_stats"])) == 2 * 17_056
    assert kernels["features_4/conv_1_0/kernel"].shape == (3, 3, 1, 144)
    path = ("params", "features_4", "conv_1_0", "kernel")
    assert MobileNetV2().import_name(path) == "features.4.conv.1.0.weight"


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("size", [(64, 96), (65, 33), (1, 7)])
def test_maps_have_the_output_stride(stride: Literal[8, 16, 32], size: tuple[int, int]):
    def at(step: int) -> tuple[int, int]:
        return -(-size[0] // step), -(-size[1] // step)

    model = MobileNetV2(output_stride=stride)
    taps, _ = shapes(model, *size)
    strides = {"conv3": 4, "conv4": 8, "conv5": min(stride, 16), "conv6": stride}
    assert model.tap_strides == strides
    assert taps["conv4"].shape == (2, *at(8), 32)  # block 5
    assert taps["conv5"].shape == (2, *at(min(stride, 16)), 96)  # block 12
    assert taps["conv6"].shape == (2, *at(stride), 1280)


def test_variables_do_not_depend_on_stride_precision_or_rematerialisation():
    plain, variables = shapes(MobileNetV2())
    for other in (
        MobileNetV2(output_stride=8),
        MobileNetV2(remat=True),
        MobileNetV2(dtype=jnp.bfloat16),
    ):
        taps, others = shapes(other)
        assert jax.tree.map(lambda v: (v.shape, v.dtype), others) == jax.tree.map(
            lambda v: (v.shape, v.dtype), variables
        )
        assert {name: tap.dtype for name, tap in taps.items()} == {
            name: jnp.float32 for name in plain
        }


def test_a_dilated_network_holds_the_strided_one():
    """Holes instead of strides: every position between is new, the old ones keep their values.

    A layer of stride 2 looks at the pixels 2i, 2i + 1 and 2i + 2, a dilated one at p - d, p and
    p + d. So position i of the strided maps is 2i + 1 after one stride is replaced, 4i + 3 after
    two.
    """
    variables = drawn_variables(MobileNetV2(), MobileNetV2(), seed=0)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 64, 96, 3)), jnp.float32)
    maps = {}
    for stride in (8, 16, 32):
        program = jax.jit(MobileNetV2(output_stride=stride).apply).lower(variables, x)
        taps: Any = program.compile(compiler_options=QUICK)(variables, x)
        maps[stride] = np.asarray(taps["conv6"])
    largest = np.abs(maps[32]).max()
    assert largest > 0.1
    np.testing.assert_allclose(maps[16][:, 1::2, 1::2], maps[32], atol=1e-5 * largest)
    np.testing.assert_allclose(maps[8][:, 3::4, 3::4], maps[32], atol=1e-5 * largest)
    np.testing.assert_allclose(maps[8][:, 1::2, 1::2], maps[16], atol=1e-5 * largest)


class Classifier(nn.Module):
    """The network as it was trained on ImageNet."""

    @nn.compact
    def __call__(self, x):
        features = MobileNetV2(output_stride=32, name="backbone")(x)["conv6"]
        return nn.Dense(1000, name="classifier_1")(features.mean((1, 2)))


DOGS, CATS = range(151, 269), range(281, 286)


def recognized(shared: Path, count: int) -> dict[str, int]:
    """How many of the first `count` images with only dogs (only cats) are taken for one."""
    data = shared / "data"
    arrays = read_checkpoint(data / "weights" / "mobilenet_v2_imagenet.npz").arrays
    arrays = {name.replace("classifier.1", "classifier_1"): a for name, a in arrays.items()}
    network: Any = Classifier()
    _, variables = shapes(network)
    # Strict: every array of the file has its place.
    variables = import_arrays(variables, arrays, backbone=MobileNetV2())

    devkit = data / "voc_animals" / "VOCdevkit" / "VOC2012"
    labels = read_label_file(data / "lists" / "cls_labels.npy", VOC_CLASSES)
    ids = (devkit / "ImageSets" / "Segmentation" / "train_aug.txt").read_text().split()
    crops, found = [], {}
    for name in ("dog", "cat"):
        only = np.arange(len(VOC_CLASSES)) == VOC_CLASSES.index(name)
        chosen = [i for i in ids if np.array_equal(labels[i], only)][:count]
        assert len(chosen) == count
        paths = [devkit / "JPEGImages" / f"{i}.jpg" for i in chosen]
        crops += [center_crop(decode_image(p.read_bytes(), str(p))) for p in paths]

    @jax.jit
    def classify(variables, images):
        valid = jnp.ones(images.shape[:3], bool)
        x = Cam(backbone=MobileNetV2()).normalized(images, valid)
        return network.apply(variables, x).argmax(-1)

    best = np.asarray(classify(variables, np.stack(crops))).reshape(2, count)
    for name, classes, row in zip(("dog", "cat"), (DOGS, CATS), best, strict=True):
        found[name] = int(np.isin(row, classes).sum())
    return found


def center_crop(image: np.ndarray, side: int = 224) -> np.ndarray:
    scale = side / min(image.shape[:2])
    height, width = (max(round(n * scale), side) for n in image.shape[:2])
    top, left = (height - side) // 2, (width - side) // 2
    return resize_image(image, height, width)[top : top + side, left : left + side]


def test_imagenet_weights_recognize_dogs_and_cats(shared: Path):
    found = recognized(shared, 10)
    assert found["dog"] >= 9 and found["cat"] >= 5, found  # found: 10 and 6


@pytest.mark.slow
def test_imagenet_weights_recognize_many_dogs_and_cats(shared: Path):
    found = recognized(shared, 40)
    assert found["dog"] >= 34 and found["cat"] >= 23, found  # found: 36 and 25
