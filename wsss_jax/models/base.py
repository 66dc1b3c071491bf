"""What a backbone is.

A backbone is one module of this package (or any module: recipes take dotted names) with one
subclass of `Backbone`. Its fields are its settings. It has to give

- ``__call__``, from images to feature maps, and `tap_strides`, how many pixels of the image there
  are per pixel of each map: nobody guesses strides from the sizes of arrays, and they need not be
  powers of two;
- `pixel_mean` and `pixel_std`, which images are normalized with.

The rest has defaults, which are those of a convolutional network under PyTorch's names, and is
replaced where a backbone differs:

- `frozen` or `param_rules`: what is trained, and at which rates;
- `foreign_name`, `import_name` and `import_layout`: what its variables are called in files of other
  programs, and how they lie there;
- `resize_param`: how position embeddings of another grid are taken over;
- `exact_padding`: whether images may be padded at inference.

Images may have any size, and one that is no multiple of a stride gives a map of
``ceil(size / stride)`` pixels. The shapes of parameters depend on the fields alone, never on the
size of the images: position embeddings have the grid that a field names and are resized inside the
call.
"""

import abc
from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from wsss_jax.models.layers import Dtype
from wsss_jax.models.torch_names import from_torch_layout, torch_name
from wsss_jax.settings import supplied
from wsss_jax.types import ParamRule


class Backbone(nn.Module, abc.ABC):
    """A network from images to feature maps, on which the methods build their heads.

    Networks take a backbone as a submodule called ``backbone``; the patterns of `param_rules` and
    the names of weights in files rest on that.

    Attributes:
      dtype: of convolutions and activations; parameters are float32. The method supplies it.
    """

    room: ClassVar[str] = "wsss_jax.models"

    pixel_mean: ClassVar[tuple[float, float, float]]
    """Mean of RGB values in 0..255 that images are normalized with."""
    pixel_std: ClassVar[tuple[float, float, float]]
    """Standard deviation of RGB values in 0..255 that images are normalized with."""
    exact_padding: ClassVar[bool] = True
    """Whether the features of a padded image equal those of the image alone.

    Attention keeps that by leaving out the tokens that are not `valid`. Where it is False,
    inference pads no image: every size of image becomes a program of its own.
    """

    dtype: Dtype = supplied(default=jnp.float32, kw_only=True)

    @property
    @abc.abstractmethod
    def tap_strides(self) -> Mapping[str, int]:
        """Image pixels per feature pixel of every feature map, by name."""

    @abc.abstractmethod
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> dict[str, Array]:
        """Feature maps of normalized images.

        Args:
          x: normalized RGB.
          valid: the top-left rectangle of each image that is no padding. With `exact_padding`
            features there are those of the unpadded image.
          train: turns dropout on (it needs a ``dropout`` key) and, where batch norm is trained, the
            batch's statistics.

        Returns:
          The maps that `tap_strides` names, [b, ceil(h / stride), ceil(w / stride), c] each:
          ``conv3``, the finest, ``conv4``, ``conv5`` and ``conv6``, the last one; ``conv2``, if
          any, is the stem's, of the stride of ``conv3``. They may all have one stride, as in a
          plain transformer. What is no map (a class token, say) may stand beside them under
          another name, for methods that ask for it.
        """

    @nn.nowrap
    def frozen(self) -> tuple[str, ...]:
        """Regular expressions for the beginning of the paths of parameters that no recipe trains.

        Paths begin with ``backbone/``. By default everything is trained.
        """
        return ()

    @nn.nowrap
    def param_rules(self) -> tuple[ParamRule, ...]:
        """How the backbone's parameters are trained; together the patterns match all of them.

        By default, as in AffinityNet's program, weights learn at the base rate and biases at twice
        that without decay; what is `frozen` does not learn.
        """
        return (
            *(ParamRule(f"^(?:{pattern}).*$", frozen=True) for pattern in self.frozen()),
            ParamRule("^backbone/.*bias$", lr=2.0, decay=False),
            ParamRule("^backbone/.*$", lr=1.0),
        )

    @nn.nowrap
    def foreign_name(self, name: str) -> str | None:
        """What `import_name` calls the array that a file calls `name`; None leaves the array out.

        For weights that are published under several systems of names, and for arrays in published
        files that the backbone has no use for (the classifier of ImageNet).
        """
        return name

    @nn.nowrap
    def import_name(self, path: tuple[str, ...]) -> str:
        """The name of a variable in files of other programs; PyTorch's by default.

        Args:
          path: collection, modules inside the backbone and the variable's name, such as
            ``("params", "layer1_0", "conv1", "kernel")``.
        """
        return torch_name(path)

    @nn.nowrap
    def import_layout(self, path: tuple[str, ...], array: np.ndarray) -> np.ndarray:
        """An array of such a file with its axes in our order; see `import_name` for `path`."""
        del path
        return from_torch_layout(array)

    @nn.nowrap
    def resize_param(
        self, path: tuple[str, ...], array: np.ndarray, shape: tuple[int, ...]
    ) -> np.ndarray:
        """An array of a file, in our layout, as the variable at `path`, which has another shape.

        For position embeddings, which are resized to the grid of this backbone. Whatever comes back
        in another shape than `shape` is refused by the caller; by default that is everything.
        """
        del path, shape
        return array
