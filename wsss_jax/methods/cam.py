"""CAM, the baseline: a classifier whose last layer, a 1×1 convolution, gives one map per class.

Source: Zhou et al., CVPR 2016, in the form of AffinityNet's program (Ahn & Kwak, CVPR 2018).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, UInt8

from wsss_jax import losses
from wsss_jax.methods.base import Aux, Method, Step
from wsss_jax.models.base import Backbone
from wsss_jax.models.layers import Conv


class CamNetwork(nn.Module):
    """A backbone, channel dropout and a 1×1 classifier without bias.

    Attributes:
      backbone: the backbone.
      num_classes: the number of foreground classes C.
      dropout: the rate of the channel dropout before the classifier.
      dtype: the type of the convolutions; the maps are float32.
      kernel_init: the initial values of the classifier.
    """

    backbone: Backbone
    num_classes: int
    dropout: float = 0.5
    dtype: str = "float32"
    kernel_init: Callable[..., Array] = nn.initializers.xavier_uniform()

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "b p q c"]:
        """Computes raw activation maps at the network's stride; `train` needs a ``dropout`` key."""
        dtype = jnp.dtype(self.dtype)
        final = self.backbone(x, valid, train=train)["conv6"]
        final = nn.Dropout(self.dropout, broadcast_dims=(1, 2))(final, deterministic=not train)
        init = self.kernel_init
        classifier = Conv(self.num_classes, 1, kernel_init=init, dtype=dtype, name="fc8")
        return classifier(final).astype(jnp.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cam(Method):
    """The CAM baseline.

    Attributes:
      dropout: the rate of the channel dropout before the classifier.
    """

    dropout: float = 0.5

    def model(self) -> nn.Module:
        """Returns the network; see `CamNetwork`."""
        return CamNetwork(
            self.backbone.clone(dtype=self.dtype), self.num_classes, self.dropout, self.dtype
        )

    def foreign_arrays(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Renames the classifier of IRNet's program, which it also saves as ``newly_added.0``."""
        return {
            "fc8.weight" if name == "classifier.weight" else name: array
            for name, array in arrays.items()
            if name != "newly_added.0.weight"
        }

    def loss(self, step: Step) -> tuple[Array, Aux]:
        """Computes the `objective` of the batch."""
        images = self.normalized(step.batch["image"], step.batch["valid"])
        loss, terms, maps = self.objective(step.variables, images, step.batch["label"], step.rng)
        return loss, Aux(terms=terms, maps=maps)

    def objective(
        self,
        variables: PyTree,
        images: Float[Array, "b h w 3"],
        labels: Float[Array, "b c"],
        rng: PRNGKeyArray,
    ) -> tuple[Array, dict[str, Array], dict[str, Array]]:
        """Returns the loss of normalized images, its terms, and maps to visualize."""
        cam: Any = self.model().apply(variables, images, train=True, rngs={"dropout": rng})
        loss = losses.multilabel_soft_margin(cam.mean((1, 2)), labels)
        return loss, {"cls": loss}, {"cam": cam}

    def predict(
        self, variables: PyTree, images: UInt8[Array, "b h w 3"], valid: Bool[Array, "b h w"]
    ) -> dict[str, Array]:
        """Returns the raw maps ``cam`` [b, h', w', C]."""
        cam: Any = self.model().apply(variables, self.normalized(images, valid), valid)
        return {"cam": cam}
