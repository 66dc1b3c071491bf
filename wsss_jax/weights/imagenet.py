"""ImageNet classifiers as they are published: logits and CAMs of the 1,000 classes.

A classifier whose last layer is linear in the mean of the features gives class activation maps
without any training (Zhou et al., CVPR 2016). It is a `Cam` of 1,000 classes here, so everything
that makes maps with a trained network also makes them with this one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree, UInt8

from wsss_jax.errors import UserError
from wsss_jax.methods.cam import Cam
from wsss_jax.methods.variables import variable_shapes
from wsss_jax.models.base import Backbone
from wsss_jax.models.layers import downsample_valid
from wsss_jax.weights.checkpoint import HEADS, read_checkpoint
from wsss_jax.weights.import_weights import import_arrays

CLASSES = 1000


@dataclass(frozen=True)
class ImageNetClassifier:
    """A network that tells the 1,000 classes of ImageNet apart, in the order of its challenge.

    Attributes:
      method: the network; its `Cam.predict` takes `variables` and gives maps without the bias.
      variables: its parameters and other variables.
      bias: the bias of the classifier, which is the same for all pixels.
    """

    method: Cam
    variables: PyTree
    bias: Float[np.ndarray, "1000"]

    def cam(
        self, images: UInt8[Array, "b h w 3"], valid: Bool[Array, "b h w"]
    ) -> Float[Array, "b p q 1000"]:
        """Computes raw activation maps at the stride of ``conv6``."""
        return self.method.predict(self.variables, images, valid)["cam"]

    def logits(
        self, images: UInt8[Array, "b h w 3"], valid: Bool[Array, "b h w"]
    ) -> Float[Array, "b 1000"]:
        """Computes the logits of images, which are the means of their maps, and the bias."""
        inside: Any = downsample_valid(valid, self.method.stride("cam"))
        maps = self.cam(images, valid)
        return jnp.mean(maps, (1, 2), where=inside[..., None]) + self.bias


def load_classifier(path: Path, backbone: Backbone, dtype: str = "float32") -> ImageNetClassifier:
    """Reads a backbone and its ImageNet classifier from a checkpoint.

    Args:
      path: the checkpoint; `wsss_jax.weights.catalogue.resolve` finds published ones.
      backbone: the backbone. At an output stride of 32 it is the network that was trained; at
        smaller ones, maps are finer and logits differ a little.
      dtype: the type of convolutions and activations.

    Raises:
      UserError: the backbone has no such classifier, or the file does not hold exactly its weights.
    """
    kind = type(backbone).__name__
    if not backbone.classifier:
        raise UserError(
            f"expected a backbone with a linear ImageNet classifier on its features, found {kind}:"
            " choose EfficientNet-Lite, MobileNetV2 or ResNet"
        )
    checkpoint = read_checkpoint(path)
    arrays = {**checkpoint.arrays, **backbone.foreign_arrays(checkpoint.arrays)}
    weight, bias = (arrays.get(f"{backbone.classifier}.{leaf}") for leaf in ("weight", "bias"))
    method = Cam(num_classes=CLASSES, backbone=backbone, dtype=dtype)  # pyright: ignore[reportArgumentType]
    params, variables = variable_shapes(method)
    channels = params["fc8"]["kernel"].shape[2]
    if (
        weight is None
        or bias is None
        or (*weight.shape, *bias.shape) != (CLASSES, channels, CLASSES)
    ):
        raise UserError(
            f"expected {backbone.classifier}.weight [{CLASSES}, {channels}] and its bias in {path},"
            " found none of this shape: name the file with the ImageNet classifier"
        )
    part = {"params": params, **variables}
    part = {name: {"backbone": tree["backbone"]} for name, tree in part.items()}
    loaded = import_arrays(
        part, checkpoint.arrays, backbone=backbone, ignore=HEADS, source=str(path)
    )
    kernel = jnp.asarray(weight, jnp.float32).T[None, None]
    loaded["params"] = {**loaded["params"], "fc8": {"kernel": kernel}}
    return ImageNetClassifier(method, loaded, np.asarray(bias, np.float32))
