"""The contract of training methods.

A method is one module of this package, or any module that a recipe names with dots, with one
subclass of `Method`, whose fields are its settings.
"""

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, UInt8

from wsss_jax.data.batch_spec import BatchSpec
from wsss_jax.errors import UserError
from wsss_jax.models.base import Backbone
from wsss_jax.settings import Settings, name_of, supplied
from wsss_jax.settings.limits import check_limits, check_shares
from wsss_jax.types import Batch, ParamRule


@flax.struct.dataclass
class Step:
    """Everything that a method gets for one training step.

    Attributes:
      params: all parameters of the network, including frozen ones.
      model_state: the network's other variables by collection (``batch_stats``), as the last step
        left them.
      extra: what `Method.init_extra` made, as the last step left it.
      batch: the global batch; see `wsss_jax.data.batch_spec.BatchSpec.shapes`.
      rng: the random key of this step.
      step: the number of this step, counted from 0, int32 [].
      total_steps: the number of steps of the training; 0 if it is unknown.
    """

    params: PyTree
    model_state: PyTree
    extra: PyTree
    batch: Batch
    rng: PRNGKeyArray
    step: Array
    total_steps: int = flax.struct.field(pytree_node=False, default=0)

    @property
    def variables(self) -> dict[str, PyTree]:
        """The variables for ``model().apply``."""
        return {"params": self.params, **self.model_state}


@flax.struct.dataclass
class Aux:
    """What a loss returns besides its value.

    Attributes:
      terms: named scalars for the log. ``cls`` (or ``cls1``), where a method has one, is the mean
        binary cross-entropy of the image-level labels, by which a training that learns nothing is
        recognized.
      maps: named arrays [B, h, w, K] to visualize (activation maps, masks); TensorBoard shows them.
      model_state: the network's other variables after the step; None leaves them unchanged.
      extra: what the method keeps besides the parameters after the step; None leaves it unchanged.
    """

    terms: dict[str, Array]
    maps: dict[str, Array] = dataclasses.field(default_factory=dict)
    model_state: PyTree | None = None
    extra: PyTree | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method(Settings, abc.ABC):
    """A training method.

    Methods are pure functions of the *global* batch. They use no axis names and no devices, and may
    compare the images of a batch with each other, however many devices it is sharded over.

    Attributes:
      num_classes: the number of foreground classes C, which the program supplies; 0 as long as the
        data is not available.
      backbone: the network under the method's own layers.
      head_lr: the learning rate of the method's own layers relative to the backbone's.
      dtype: the type of convolutions and activations; parameters are float32.
    """

    room: ClassVar[str] = "wsss_jax.methods"

    outputs: ClassVar[tuple[str, ...]] = ("cam",)
    """The names of the arrays that `predict` returns."""

    trains_batch_norm: ClassVar[bool] = False
    """Whether `loss` updates the statistics of the backbone's batch norm, which the setting
    ``bn_momentum`` of a backbone asks for."""

    enough_steps: ClassVar[int] = 200
    """The steps that a training from published weights needs for usable results, however few
    images there are. `prepare folder` and the warning of a short training say how to get them."""

    added_layers: ClassVar[tuple[str, ...]] = ()
    """The modules that the method adds to a trained network, of a training that the need ``init``
    names. Where that network lacks them, they are drawn by chance."""

    made_by: ClassVar[str] = ""
    """The type of the stage that makes the method's network without training, or "" for a method
    that is trained."""

    num_classes: int = supplied(default=0)
    backbone: Backbone
    head_lr: float = 10.0
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        """Checks the rates, including those of dropout and batch norm in the backbone and the head.

        Raises:
          UserError: one of them is out of its range, or the batch norm of the backbone should be
            trained but the method keeps it frozen.
        """
        super().__post_init__()
        check_limits(self, head_lr=(0, math.inf))
        for part in (self, *(getattr(self, field.name) for field in dataclasses.fields(self))):
            if hasattr(part, "dropout"):
                check_shares(part, "dropout")
            if hasattr(part, "bn_momentum"):
                check_limits(part, bn_momentum=(0, 1))
        momentum = getattr(self.backbone, "bn_momentum", 0)
        if momentum and not self.trains_batch_norm:
            raise UserError(
                f"expected bn_momentum of 0 in the backbone, whose batch norm {name_of(type(self))}"
                f" keeps frozen, found {momentum}: change it"
            )

    def check_trained(self) -> None:
        """Refuses to train a method whose network another stage makes.

        Raises:
          UserError: this is such a method; see `made_by`.
        """
        if self.made_by:
            raise UserError(
                f"expected a method that is trained, found {name_of(type(self))}, whose network a"
                f" stage of type {self.made_by} makes: choose another method"
            )

    def batch_spec(self) -> BatchSpec:
        """Returns what a batch has besides images and image-level labels, by default nothing."""
        return BatchSpec()

    @abc.abstractmethod
    def model(self) -> nn.Module:
        """Returns the network to train, which is called with ``(x, valid=None, *, train=False)``.

        It has the backbone as a submodule called ``backbone``, to which the method passes its
        dtype: ``MyNetwork(backbone=self.backbone.clone(dtype=self.dtype))``.
        """

    def param_rules(self) -> tuple[ParamRule, ...]:
        """Returns rules for optimizing the parameters; one that no rule matches is an error.

        By default, these are the groups of AffinityNet's program, which SSENet and SEAM share: the
        groups of the backbone, and the method's own layers at `head_lr` times the base rate, whose
        biases have twice this rate and no weight decay.
        """
        return (
            *self.backbone.param_rules(),
            ParamRule("^.*bias$", lr=2.0 * self.head_lr, decay=False),
            ParamRule("^.*$", lr=self.head_lr),
        )

    def init_extra(self, params: PyTree) -> PyTree:
        """Returns what the method keeps besides the parameters, such as an EMA teacher or a queue.

        Parameters must be copied (``jax.tree.map(jnp.copy, params)``), because a step donates the
        memory of its arguments.
        """
        del params
        return ()

    @abc.abstractmethod
    def loss(self, step: Step) -> tuple[Array, Aux]:
        """Returns the scalar to minimize, float32 [], and what else the step reports."""

    def after_step(self, step: Step, new_params: PyTree) -> PyTree:
        """Returns what the method keeps after an optimizer step to `new_params`.

        `step` is the step of the loss, with `model_state` and `extra` as the loss left them.
        """
        del new_params
        return step.extra

    def inference_params(self, params: PyTree, extra: PyTree) -> PyTree:
        """Returns the parameters to use after training, such as an average of them."""
        del extra
        return params

    def foreign_arrays(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Returns the arrays of a network of the authors' program under the names of this one.

        It renames the method's own layers and leaves out what the program saved besides them; those
        of the backbone are `Backbone.foreign_arrays`'s. By default, the names are the same.
        """
        return arrays

    def stride(self, output: str) -> int:
        """Returns the image pixels per pixel of the prediction `output`, by default ``conv6``'s."""
        del output
        return self.backbone.tap_strides["conv6"]

    @abc.abstractmethod
    def predict(
        self, variables: PyTree, images: UInt8[Array, "b h w 3"], valid: Bool[Array, "b h w"]
    ) -> dict[str, Array]:
        """Predicts arrays for images at inference.

        Args:
          variables: ``params`` and the other variables by collection.
          images: the images in RGB.
          valid: the top-left rectangle that each image fills. If the padding of the backbone is
            exact, the result inside this rectangle equals that of the unpadded image.

        Returns:
          The arrays that `outputs` names, [b, h', w', k] at the network's stride. Stages use
          ``cam`` (raw maps of the C foreground classes), ``affinity``, ``boundary`` and ``logits``
          (of the background and the classes).
        """

    def features(
        self, variables: PyTree, images: UInt8[Array, "b h w 3"], valid: Bool[Array, "b h w"]
    ) -> Float[Array, "b p q d"]:
        """Computes ``conv6`` of the backbone of a trained network.

        The arguments are those of `predict`, and what holds for padding there holds here.
        """
        own = {name: tree["backbone"] for name, tree in variables.items() if "backbone" in tree}
        backbone = self.backbone.clone(dtype=self.dtype)
        taps: Any = backbone.apply(own, self.normalized(images, valid), valid)
        return taps["conv6"]

    def normalized(
        self, images: UInt8[Array, "b h w 3"], valid: Bool[Array, "b h w"]
    ) -> Float[Array, "b h w 3"]:
        """Normalizes images with the backbone's statistics and sets padding to zero.

        As in the published programs, padding is set to zero after the normalization, so it has the
        mean color.
        """
        mean = jnp.asarray(self.backbone.pixel_mean, jnp.float32)
        std = jnp.asarray(self.backbone.pixel_std, jnp.float32)
        return (images.astype(jnp.float32) - mean) / std * valid[..., None]


def ema_update(teacher: PyTree, params: PyTree, decay: float) -> PyTree:
    """Returns the EMA teacher after a step to `params`: decay·teacher + (1 − decay)·params."""
    # The arguments are swapped so that `decay` itself is the factor: 1 − (1 − decay) is a different
    # number in floating point.
    return optax.incremental_update(teacher, params, decay)
