"""Segmentation network trained on masks: ground truth (the upper bound) or pseudo labels.

DeepLabv1 with a large field of view (Chen et al., ICLR 2015) in the form SEAM retrains it: two
convolutions with trained batch norm on top of any backbone.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, UInt8

from wsss_jax import losses, models
from wsss_jax.methods import base
from wsss_jax.models.layers import Conv, downsample_valid, mask_features
from wsss_jax.ops.resize import resize_bilinear
from wsss_jax.types import Aux, Batch, ParamRule


class SegmentationNetwork(nn.Module):
    """Backbone, dilated 3×3 and 1×1 convolutions with batch norm, dropout and a 1×1 classifier.

    Attributes:
      backbone_fields: description of the backbone, see `wsss_jax.models.build`.
      num_classes: foreground classes C; the classifier has C + 1 channels, 0 is background.
      features: channels of the two layers.
      dilation: of the 3×3 layer.
      dropout: rate before the classifier.
      bn_momentum: share of new statistics in the running ones at every step.
      dtype: of the convolutions; logits are float32.
    """

    backbone_fields: Mapping[str, Any]
    num_classes: int
    features: int = 512
    dilation: int = 12
    dropout: float = 0.5
    bn_momentum: float = 3e-4
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "b p q c1"]:
        """Logits at the network's stride; with `train` batch statistics are used and updated."""
        dtype = jnp.dtype(self.dtype)
        backbone = models.build({"dtype": dtype, **self.backbone_fields}, name="backbone")
        x = backbone(x, valid, train=train)["conv6"]
        low_valid = downsample_valid(valid, backbone.feature_stride)
        for number, kernel_size in enumerate((3, 1)):
            x = Conv(
                self.features,
                kernel_size,
                dilation=self.dilation if kernel_size > 1 else 1,
                dtype=dtype,
                name=f"conv_{number}",
            )(mask_features(x, low_valid))
            x = nn.BatchNorm(
                use_running_average=not train,
                momentum=1 - self.bn_momentum,
                epsilon=1e-5,
                dtype=dtype,
                name=f"norm_{number}",
            )(x)
            x = nn.relu(x)
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        classifier = Conv(self.num_classes + 1, 1, use_bias=True, dtype=dtype, name="classifier")
        return classifier(x).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Segmentation(base.Method):
    """Hyper-parameters of the segmentation network.

    Attributes:
      num_classes: foreground classes C.
      backbone: description of the backbone, see `wsss_jax.models.build`.
      features, dilation, dropout, bn_momentum, dtype: see `SegmentationNetwork`.
      head_lr: learning rate of the new layers relative to the backbone's.
    """

    num_classes: int
    backbone: Mapping[str, Any]
    features: int = 512
    dilation: int = 12
    dropout: float = 0.5
    bn_momentum: float = 3e-4
    dtype: str = "float32"
    head_lr: float = 10.0

    def model(self) -> nn.Module:
        """The network; see `SegmentationNetwork`."""
        return SegmentationNetwork(
            dict(self.backbone),
            self.num_classes,
            self.features,
            self.dilation,
            self.dropout,
            self.bn_momentum,
            self.dtype,
        )

    def param_rules(self) -> tuple[ParamRule, ...]:
        """Four groups: new layers at `head_lr` times the rate, biases at twice without decay."""
        return base.four_groups(self.backbone, self.head_lr)

    def loss(
        self,
        params: PyTree,
        state: PyTree,
        batch: Batch,
        rng: PRNGKeyArray,
        step: Array,
        extra: PyTree = (),
    ) -> tuple[Array, Aux]:
        """Cross entropy at the image's size; 255 is ignored."""
        del step, extra
        images = base.network_input(batch["image"], batch["valid"], self.backbone)
        logits, new_state = self.model().apply(
            {"params": params, **state},
            images,
            train=True,
            rngs={"dropout": rng},
            mutable=["batch_stats"],
        )
        size = (images.shape[1], images.shape[2])
        logits = resize_bilinear(logits, size, align_corners=True)
        loss = losses.masked_cross_entropy(logits, batch["segmentation"])
        maps = {"segmentation": logits}
        return loss, Aux(terms={"ce": loss}, state={**state, **new_state}, maps=maps)

    def predict(
        self, variables: PyTree, images: UInt8[Array, "b h w 3"], valid: Bool[Array, "b h w"]
    ) -> dict[str, Array]:
        """``logits`` [b, h', w', C + 1] at the network's stride."""
        inputs = base.network_input(images, valid, self.backbone)
        logits = self.model().apply(variables, inputs, valid)
        assert isinstance(logits, jnp.ndarray)
        return {"logits": logits}


Method = Segmentation
