"""ReCAM, class re-activation maps (Chen et al., CVPR 2022, arXiv 2203.00962).

Binary cross-entropy lets several classes respond to the same pixels. A trained CAM network gets a
second classifier, which has to tell from the features under the map of a class which class it is,
by softmax cross-entropy. At inference, the product of both classifiers' weights makes the maps.
"""

import dataclasses
import math
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, UInt8

from wsss_jax import losses
from wsss_jax.methods.cam import Cam
from wsss_jax.models.base import Backbone
from wsss_jax.models.layers import Conv
from wsss_jax.ops.max_norm import EPSILON, brightest
from wsss_jax.settings.limits import check_limits
from wsss_jax.types import ParamRule

_AS_PYTORCH = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""The initial values of a convolution in PyTorch, which the published program keeps."""


class ReCamNetwork(nn.Module):
    """A backbone and two classifiers without bias: of pixels, as in `Cam`, and of class features.

    Attributes:
      backbone: the backbone.
      num_classes: the number of foreground classes C.
      dropout: the rate of the channel dropout before both classifiers.
      dtype: the type of the convolutions; maps, class features and their logits are float32.
    """

    backbone: Backbone
    num_classes: int
    dropout: float = 0.0
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> dict[str, Array]:
        """Computes maps at the network's stride; `train` needs a ``dropout`` key.

        Returns:
          The raw maps ``cam`` [b, h', w', C] of the first classifier, ``reactivated`` [b, h', w',
          C] with the product of both classifiers' weights, and ``class_logits`` [b, C, C], where
          row c has the logits that the second classifier gives the features of class c.
        """
        dtype = jnp.dtype(self.dtype)
        final = self.backbone(x, valid, train=train)["conv6"].astype(dtype)
        final = nn.Dropout(self.dropout, broadcast_dims=(1, 2))(final, deterministic=not train)
        xavier = nn.initializers.xavier_uniform()
        first = Conv(self.num_classes, 1, kernel_init=xavier, dtype=dtype, name="fc8")
        cam = first(final).astype(jnp.float32)
        features = class_features(final, cam)
        second = Conv(self.num_classes, 1, kernel_init=_AS_PYTORCH, name="fc8_softmax")
        class_logits = second(features[:, :, None])[:, :, 0]
        w, w2 = (layer.variables["params"]["kernel"][0, 0] for layer in (first, second))
        reactivated = jnp.einsum("bhwd,dc->bhwc", final, (w * w2).astype(dtype))
        reactivated = reactivated.astype(jnp.float32)
        return {"cam": cam, "reactivated": reactivated, "class_logits": class_logits}


def class_features(
    features: Float[Array, "b h w d"], cam: Float[Array, "b h w c"]
) -> Float[Array, "b c d"]:
    """Computes the mean over all pixels of the features times the normalized map of each class.

    The map is ``relu(cam) / (max relu(cam) + ε)``; the mean is not divided by its sum. Gradients
    flow through the map and its maximum too. The product of maps and features is never formed.
    """
    planes = nn.relu(jnp.moveaxis(cam, -1, 1))
    planes = (planes / (brightest(planes) + EPSILON)).astype(features.dtype)
    pixels = features.shape[1] * features.shape[2]
    total = jnp.einsum("bchw,bhwd->bcd", planes, features, preferred_element_type=jnp.float32)
    return total / pixels


def softmax_of_present(
    class_logits: Float[Array, "b c c"], labels: Float[Array, "b c"]
) -> Float[Array, ""]:
    """Computes the softmax cross-entropy of rows that should find their own class, L_sce.

    It is a mean over the present classes of an image, and then over the images, of which those
    without any class have zero.

    Args:
      class_logits: the logits of the features of every class.
      labels: the labels, 0 or 1.
    """
    classes = jnp.broadcast_to(jnp.arange(labels.shape[1]), labels.shape)
    entropy = optax.softmax_cross_entropy_with_integer_labels(class_logits, classes)
    count = jnp.maximum(labels.sum(1), 1)
    return jnp.mean((entropy * labels).sum(1) / count)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReCam(Cam):
    """ReCAM; the defaults are the published ones.

    The training starts from a trained network of `Cam`, the need ``init``, which lacks the second
    classifier.

    Attributes:
      softmax_weight: the weight λ of the loss of class features, L_sce.
      head_lr: the learning rate of the second classifier relative to the backbone's, which the
        first classifier shares.
      dropout: the rate of the channel dropout before both classifiers.
    """

    outputs: ClassVar[tuple[str, ...]] = ("cam", "cam_main")
    added_layers: ClassVar[tuple[str, ...]] = ("fc8_softmax",)

    softmax_weight: float = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: a value is out of its range.
        """
        super().__post_init__()
        check_limits(self, softmax_weight=(0, math.inf))

    def model(self) -> nn.Module:
        """Returns the network; see `ReCamNetwork`."""
        return ReCamNetwork(
            self.backbone.clone(dtype=self.dtype), self.num_classes, self.dropout, self.dtype
        )

    def param_rules(self) -> tuple[ParamRule, ...]:
        """Returns the rules: only the second classifier is new and learns at `head_lr`."""
        return (ParamRule("^fc8/"), *super().param_rules())

    def objective(
        self,
        variables: PyTree,
        images: Float[Array, "b h w 3"],
        labels: Float[Array, "b c"],
        rng: PRNGKeyArray,
    ) -> tuple[Array, dict[str, Array], dict[str, Array]]:
        """Computes L = L_cls + softmax_weight·L_sce."""
        found: Any = self.model().apply(variables, images, train=True, rngs={"dropout": rng})
        terms = {
            "cls": losses.multilabel_soft_margin(found["cam"].mean((1, 2)), labels),
            "sce": softmax_of_present(found["class_logits"], labels),
        }
        loss = terms["cls"] + self.softmax_weight * terms["sce"]
        return loss, terms, {name: found[name] for name in ("cam", "reactivated")}

    def predict(
        self, variables: PyTree, images: UInt8[Array, "b h w 3"], valid: Bool[Array, "b h w"]
    ) -> dict[str, Array]:
        """Predicts maps at the network's stride.

        Returns:
          The raw re-activated maps ``cam`` [b, h', w', C], and ``cam_main``, which are those of the
          first classifier alone.
        """
        found: Any = self.model().apply(variables, self.normalized(images, valid), valid)
        return {"cam": found["reactivated"], "cam_main": found["cam"]}
