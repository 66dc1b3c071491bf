"""CAM: the baseline. A classifier whose last layer is a 1×1 convolution gives one map per class.

Zhou et al., CVPR 2016, in the form of AffinityNet's program (Ahn & Kwak, CVPR 2018).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, UInt8

from wsss_jax import losses, models
from wsss_jax.methods import base
from wsss_jax.models.layers import Conv
from wsss_jax.types import Aux, Batch, ParamRule


class CamNetwork(nn.Module):
    """Backbone, channel dropout and a 1×1 classifier without bias.

    Attributes:
      backbone_fields: description of the backbone, see `wsss_jax.models.build`.
      num_classes: foreground classes C.
      dropout: rate of the channel dropout before the classifier.
      dtype: of the convolutions; the maps are float32.
    """

    backbone_fields: Mapping[str, Any]
    num_classes: int
    dropout: float = 0.5
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "b p q c"]:
        """Raw activation maps at the network's stride; `train` needs a ``dropout`` key."""
        dtype = jnp.dtype(self.dtype)
        backbone = models.build({"dtype": dtype, **self.backbone_fields}, name="backbone")
        final = backbone(x, valid, train=train)["conv6"]
        final = nn.Dropout(self.dropout, broadcast_dims=(1, 2))(final, deterministic=not train)
        xavier = nn.initializers.xavier_uniform()
        classifier = Conv(self.num_classes, 1, kernel_init=xavier, dtype=dtype, name="fc8")
        return classifier(final).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Cam(base.Method):
    """Hyper-parameters of the baseline.

    Attributes:
      num_classes: foreground classes C.
      backbone: description of the backbone, see `wsss_jax.models.build`.
      dropout, dtype: see `CamNetwork`.
      head_lr: learning rate of the new layers relative to the backbone's.
    """

    num_classes: int
    backbone: Mapping[str, Any]
    dropout: float = 0.5
    dtype: str = "float32"
    head_lr: float = 10.0

    def model(self) -> nn.Module:
        """The network; see `CamNetwork`."""
        return CamNetwork(dict(self.backbone), self.num_classes, self.dropout, self.dtype)

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
        """L_cls of the maps' averages; see `wsss_jax.methods.base.Method`."""
        del step, extra
        images = base.network_input(batch["image"], batch["valid"], self.backbone)
        cam = self.model().apply(
            {"params": params, **state}, images, train=True, rngs={"dropout": rng}
        )
        assert isinstance(cam, jnp.ndarray)
        loss = losses.multilabel_soft_margin(cam.mean((1, 2)), batch["label"])
        return loss, Aux(terms={"cls": loss}, state=state, maps={"cam": cam})

    def predict(
        self, variables: PyTree, images: UInt8[Array, "b h w 3"], valid: Bool[Array, "b h w"]
    ) -> dict[str, Array]:
        """Raw maps [b, h', w', C] at the network's stride; see `wsss_jax.methods.base.Method`."""
        inputs = base.network_input(images, valid, self.backbone)
        cam = self.model().apply(variables, inputs, valid)
        assert isinstance(cam, jnp.ndarray)
        return {"cam": cam}


Method = Cam
