"""What a training method is.

A method is one module of this package (or any module: recipes take dotted names) with one subclass
of `Method`. Its fields are its settings.
"""

import abc
import dataclasses
from typing import ClassVar, Literal

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, UInt8

from wsss_jax.data.batch_spec import BatchSpec
from wsss_jax.models.base import Backbone
from wsss_jax.settings import Settings, supplied
from wsss_jax.types import Batch, ParamRule


@flax.struct.dataclass
class Step:
    """One training step, as a method sees it.

    Attributes:
      params: all parameters of the network, trained or not.
      model_state: the network's other variables by collection (``batch_stats``), as the last step
        left them.
      extra: what `Method.init_extra` made, as the last step left it.
      batch: the global batch, see `wsss_jax.data.batch_spec.BatchSpec.shapes`.
      rng: key of this step.
      step: int32 [], the number of this step, counted from 0.
    """

    params: PyTree
    model_state: PyTree
    extra: PyTree
    batch: Batch
    rng: PRNGKeyArray
    step: Array

    @property
    def variables(self) -> dict[str, PyTree]:
        """What ``model().apply`` takes."""
        return {"params": self.params, **self.model_state}


@flax.struct.dataclass
class Aux:
    """What a loss reports besides its value.

    Attributes:
      terms: named scalars for the log.
      maps: named [B, h, w, K] arrays worth looking at (activation maps, masks); TensorBoard shows
        them.
      model_state: the network's other variables after the step; None: unchanged.
      extra: what the method keeps beside the parameters after the step; None: unchanged.
    """

    terms: dict[str, Array]
    maps: dict[str, Array] = dataclasses.field(default_factory=dict)
    model_state: PyTree | None = None
    extra: PyTree | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method(Settings, abc.ABC):
    """A training method.

    Methods are pure functions of the *global* batch: they use no axis names and no device, and may
    compare the images of a batch with each other however many devices share it.

    Attributes:
      num_classes: foreground classes C of the data. The program supplies it; 0 where the data is
        not at hand yet.
      backbone: the network under the method's own layers.
      head_lr: learning rate of the method's own layers relative to the backbone's.
      dtype: of convolutions and activations; parameters are float32.
    """

    room: ClassVar[str] = "wsss_jax.methods"

    outputs: ClassVar[tuple[str, ...]] = ("cam",)
    """Names of what `predict` gives."""

    num_classes: int = supplied(default=0)
    backbone: Backbone
    head_lr: float = 10.0
    dtype: Literal["float32", "bfloat16"] = "float32"

    def batch_spec(self) -> BatchSpec:
        """What a batch has beside images and image-level labels: by default nothing."""
        return BatchSpec()

    @abc.abstractmethod
    def model(self) -> nn.Module:
        """The network to train; it is called with ``(x, valid=None, *, train=False)``.

        It takes the backbone as a submodule called ``backbone``, which the method gives its dtype:
        ``MyNetwork(backbone=self.backbone.clone(dtype=self.dtype))``.
        """

    def param_rules(self) -> tuple[ParamRule, ...]:
        """How each parameter is optimized; a parameter that no rule matches is an error.

        By default these are the groups of AffinityNet's program, which SSENet's and SEAM's share:
        those that the backbone states, and the method's own layers at `head_lr` times the base
        rate, their biases at twice that without weight decay.
        """
        return (
            *self.backbone.param_rules(),
            ParamRule("^.*bias$", lr=2.0 * self.head_lr, decay=False),
            ParamRule("^.*$", lr=self.head_lr),
        )

    def init_extra(self, params: PyTree) -> PyTree:
        """What the method keeps beside the parameters (an EMA teacher, a queue).

        A copy of parameters has to be one (``jax.tree.map(jnp.copy, params)``), for a step gives
        the memory of its arguments away.
        """
        del params
        return ()

    @abc.abstractmethod
    def loss(self, step: Step) -> tuple[Array, Aux]:
        """The scalar to minimize, float32 [], and what there is to report."""

    def after_step(self, step: Step, new_params: PyTree) -> PyTree:
        """What the method keeps beside the parameters after an optimizer step to `new_params`.

        `step` is that of the loss, with `model_state` and `extra` as the loss left them.
        """
        del new_params
        return step.extra

    def inference_params(self, params: PyTree, extra: PyTree) -> PyTree:
        """The parameters to use after training (an average of them, perhaps)."""
        del extra
        return params

    def stride(self, output: str) -> int:
        """Image pixels per pixel of what `predict` gives as `output`; mostly the backbone's."""
        del output
        return self.backbone.tap_strides["conv6"]

    @abc.abstractmethod
    def predict(
        self, variables: PyTree, images: UInt8[Array, "b h w 3"], valid: Bool[Array, "b h w"]
    ) -> dict[str, Array]:
        """Inference.

        Args:
          variables: ``params`` and the other variables by collection.
          images: RGB.
          valid: the top-left rectangle that each image fills. Where the backbone's padding is
            exact, the result inside it is that of the unpadded image.

        Returns:
          The arrays that `outputs` names, [b, h', w', k] at the network's stride: ``cam`` (raw maps
          of the C foreground classes), ``affinity``, ``boundary`` and ``logits`` (of background
          and classes) have a meaning to the stages.
        """

    def normalized(
        self, images: UInt8[Array, "b h w 3"], valid: Bool[Array, "b h w"]
    ) -> Float[Array, "b h w 3"]:
        """Images normalized with the backbone's statistics, and zero where padded.

        Zero comes after the normalization, as published: padding has the color of the mean.
        """
        mean = jnp.asarray(self.backbone.pixel_mean, jnp.float32)
        std = jnp.asarray(self.backbone.pixel_std, jnp.float32)
        return (images.astype(jnp.float32) - mean) / std * valid[..., None]


def ema_update(teacher: PyTree, params: PyTree, decay: float) -> PyTree:
    """The EMA teacher after a step that led to `params`: decay·teacher + (1 − decay)·params."""
    # Optax's average has the two the other way round; so `decay` itself is the factor, rather than
    # 1 − (1 − decay), which is another number.
    return optax.incremental_update(teacher, params, decay)
