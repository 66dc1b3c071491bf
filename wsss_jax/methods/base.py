"""What a training method is, and what the methods that make activation maps have in common."""

from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, UInt8

from wsss_jax.models.base import Backbone
from wsss_jax.types import Aux, Batch, ParamRule


@runtime_checkable
class Method(Protocol):
    """A training method: one frozen dataclass whose fields are its hyper-parameters.

    Its module exports it a second time as ``Method``, so that a config names a method by its file.
    Methods are pure functions of the *global* batch: they use no axis names and no device.
    """

    def model(self) -> nn.Module:
        """The network to train; it is called with ``(x, valid=None, *, train=False)``."""
        ...

    def param_rules(self) -> tuple[ParamRule, ...]:
        """How each parameter is optimised; a parameter that no rule matches is an error."""
        ...

    def init_extra(self, params: PyTree) -> PyTree:
        """What the method keeps beside the parameters (an averaged network, a queue)."""
        del params
        return ()

    def loss(
        self,
        params: PyTree,
        state: PyTree,
        batch: Batch,
        rng: PRNGKeyArray,
        step: Array,
        extra: PyTree = (),
    ) -> tuple[Array, Aux]:
        """The scalar to minimise and what there is to report.

        Args:
          params: trainable variables.
          state: the other variables (``batch_stats``), as the last step left them.
          batch: see `wsss_jax.types.Batch`.
          rng: key of this step.
          step: int32 [], counted from 0.
          extra: what `init_extra` made, as the last step left it.
        """
        ...

    def after_step(self, extra: PyTree, params: PyTree) -> PyTree:
        """`extra` after an optimiser step that led to `params`."""
        del params
        return extra

    def inference_params(self, params: PyTree, extra: PyTree) -> PyTree:
        """The parameters to use after training (an average of them, perhaps)."""
        del extra
        return params

    def predict(
        self, variables: PyTree, images: UInt8[Array, "b h w 3"], valid: Bool[Array, "b h w"]
    ) -> dict[str, Array]:
        """Inference: ``cam``, ``affinity``, ``boundary`` or ``logits``, at the network's stride.

        `valid` marks the top-left rectangle that each image fills; inside it the result is that of
        the unpadded image.
        """
        ...


class MapMethod(Method, Protocol):
    """A method that learns activation maps from images and their labels alone.

    Its dataclass says what the network and `objective` are; the rest is here, to be replaced where
    a method needs more.

    Attributes:
      num_classes: foreground classes C.
      backbone: the network under the new layers.
      head_lr: learning rate of the new layers relative to the backbone's.
    """

    num_classes: int
    backbone: Backbone
    head_lr: float

    def param_rules(self) -> tuple[ParamRule, ...]:
        """Four groups: new layers at `head_lr` times the rate, biases at twice without decay."""
        return four_groups(self.backbone, self.head_lr)

    def objective(
        self,
        variables: PyTree,
        images: Float[Array, "b h w 3"],
        labels: Float[Array, "b c"],
        rng: PRNGKeyArray,
    ) -> tuple[Array, dict[str, Array], dict[str, Array]]:
        """The loss of normalised images, its named terms, and maps worth looking at."""
        ...

    def loss(
        self,
        params: PyTree,
        state: PyTree,
        batch: Batch,
        rng: PRNGKeyArray,
        step: Array,
        extra: PyTree = (),
    ) -> tuple[Array, Aux]:
        """`objective` of the batch, at every step alike; see `Method`."""
        del step, extra
        images = network_input(batch["image"], batch["valid"], self.backbone)
        loss, terms, maps = self.objective({"params": params, **state}, images, batch["label"], rng)
        return loss, Aux(terms=terms, state=state, maps=maps)

    def predict(
        self, variables: PyTree, images: UInt8[Array, "b h w 3"], valid: Bool[Array, "b h w"]
    ) -> dict[str, Array]:
        """Raw maps [b, h', w', C] of a network that gives nothing else; see `Method`."""
        inputs = network_input(images, valid, self.backbone)
        cam: Any = self.model().apply(variables, inputs, valid)
        return {"cam": cam}


def network_input(
    images: UInt8[Array, "b h w 3"],
    valid: Bool[Array, "b h w"],
    backbone: Backbone,
) -> Float[Array, "b h w 3"]:
    """Images normalised with the backbone's statistics, and zero where padded.

    Zero comes after the normalisation, as published: padding has the colour of the mean.
    """
    mean = jnp.asarray(backbone.pixel_mean, jnp.float32)
    std = jnp.asarray(backbone.pixel_std, jnp.float32)
    return (images.astype(jnp.float32) - mean) / std * valid[..., None]


def four_groups(backbone: Backbone, head_lr: float = 10.0) -> tuple[ParamRule, ...]:
    """The parameter groups of AffinityNet's code, which SSENet and SEAM share.

    Weights of the backbone learn at the base rate and biases at twice that without decay; new
    layers learn `head_lr` times faster. Expects the network's submodule to be called ``backbone``.
    """
    frozen = backbone.frozen()
    return (
        *(ParamRule(f"^(?:{pattern}).*$", frozen=True) for pattern in frozen),
        ParamRule("^backbone/.*bias$", lr=2.0, decay=False),
        ParamRule("^backbone/.*$", lr=1.0),
        ParamRule("^.*bias$", lr=2.0 * head_lr, decay=False),
        ParamRule("^.*$", lr=head_lr),
    )
