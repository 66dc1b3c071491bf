"""The contract of backbones.

A backbone is one module of this package, or any module that a recipe names with dots, with one
subclass of `Backbone`, whose fields are its settings. The class has to define

- ``__call__``, from images to feature maps, and `tap_strides`, the pixels of the image per pixel of
  each map. Nothing guesses strides from the sizes of arrays, and they need not be powers of two;
- `pixel_mean` and `pixel_std`, with which images are normalized.

Everything else has defaults that fit a convolutional network with PyTorch's names. A backbone that
differs overrides them:

- `frozen` or `param_rules` state what is trained, and at which rates;
- `foreign_arrays`, `import_name`, `import_layout` and `export_layout` state the names and the
  layout of its variables in files of other programs;
- `resize_param` adapts position embeddings of another grid;
- `shown_settings` tells the settings that the arrays of files show, `stated_settings` those that
  files of other programs state in words, and `not_in_files` those that arrays do not show;
- `exact_padding` states whether images may be padded at inference.

Images may have any size, and a size that is not a multiple of a stride gives a map of
``ceil(size / stride)`` pixels. The shapes of parameters depend only on the fields and never on the
size of the images. So position embeddings have the grid that a field states, and are resized inside
the call.
"""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from wsss_jax.models.layers import Dtype
from wsss_jax.models.torch_names import from_torch_layout, to_torch_layout, torch_name
from wsss_jax.settings import supplied
from wsss_jax.types import ParamRule


class Backbone(nn.Module, abc.ABC):
    """A network from images to feature maps, on which the methods build their heads.

    Networks have the backbone as a submodule called ``backbone``. The patterns of `param_rules` and
    the names of weights in files depend on this name.

    Attributes:
      dtype: the type of convolutions and activations, which the method supplies; parameters are
        float32.
    """

    room: ClassVar[str] = "wsss_jax.models"

    pixel_mean: ClassVar[tuple[float, float, float]]
    """The mean of RGB values in 0…255 with which images are normalized."""
    pixel_std: ClassVar[tuple[float, float, float]]
    """The standard deviation of RGB values in 0…255 with which images are normalized."""
    exact_padding: ClassVar[bool] = True
    """Whether the features of a padded image equal those of the image alone.

    Attention fulfills this by leaving out the tokens that are not `valid`. If it is False,
    inference does not pad images, and compiles a program for every size.
    """

    classifier: ClassVar[str] = ""
    """The linear ImageNet classifier of the mean of ``conv6``, as files call it; "" for none."""

    not_in_files: ClassVar[tuple[str, ...]] = ()
    """The settings that belong to weights, but that the arrays of a file do not show."""

    dtype: Dtype = supplied(default=jnp.float32, kw_only=True)

    @property
    @abc.abstractmethod
    def tap_strides(self) -> Mapping[str, int]:
        """The image pixels per feature pixel of every feature map, by name."""

    @abc.abstractmethod
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> dict[str, Array]:
        """Computes the feature maps of normalized images.

        Args:
          x: normalized RGB images.
          valid: the top-left rectangle of each image that is not padding. With `exact_padding`, the
            features there equal those of the unpadded image.
          train: turns on dropout, which needs a ``dropout`` key, and the statistics of the batch
            where batch norm is trained.

        Returns:
          The maps that `tap_strides` names, [b, ceil(h / stride), ceil(w / stride), c] each:
          ``conv3`` (the finest), ``conv4``, ``conv5`` and ``conv6`` (the last). ``conv2`` is
          optional; it is the stem's map and has the stride of ``conv3``. All maps may have the same
          stride, as in a plain transformer. Outputs that are not maps, such as a class token, may
          be returned under other names for methods that use them.
        """

    @nn.nowrap
    def frozen(self) -> tuple[str, ...]:
        """Returns regular expressions that match the beginning of the paths of frozen parameters.

        Paths begin with ``backbone/``. By default, all parameters are trained.
        """
        return ()

    @nn.nowrap
    def param_rules(self) -> tuple[ParamRule, ...]:
        """Returns rules for training the backbone's parameters, which together match all of them.

        By default, as in AffinityNet's program, weights have the base learning rate, and biases
        have twice this rate and no decay. Parameters that are `frozen` are not trained.
        """
        return (
            *(ParamRule(f"^(?:{pattern}).*$", frozen=True) for pattern in self.frozen()),
            ParamRule("^backbone/.*bias$", lr=2.0, decay=False),
            ParamRule("^backbone/.*$", lr=1.0),
        )

    @nn.nowrap
    def foreign_arrays(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Returns the arrays of a file under the names that `import_name` gives.

        This is for weights that are published under several systems of names, for arrays that a
        file holds in several parts or in another shape, and for arrays that the backbone does not
        use, such as those of the ImageNet classifier, which are left out. By default, the names of
        the file are those of `import_name`.

        Args:
          arrays: the arrays of the file by name, in the layout of the file. They may be mapped from
            disk and are not changed; arrays that are only renamed, reshaped or transposed should be
            passed on as they are or as views.
        """
        return arrays

    @classmethod
    def shown_settings(cls, arrays: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        """Returns the settings that the arrays of a file show, if it is one of such backbones.

        It is for backbones with many settings on which the variables depend. The settings of others
        are found by trying, so by default there are none.

        Args:
          arrays: the arrays of the file by name, of which only the shapes count.
        """
        del arrays
        return {}

    @nn.nowrap
    def import_name(self, path: tuple[str, ...]) -> str:
        """Returns the name of a variable in files of other programs, by default PyTorch's.

        Args:
          path: the collection, the modules inside the backbone and the name of the variable, such
            as ``("params", "layer1_0", "conv1", "kernel")``.
        """
        return torch_name(path)

    @nn.nowrap
    def import_layout(self, path: tuple[str, ...], array: np.ndarray) -> np.ndarray:
        """Returns an array of such a file with its axes in our order; `path` is the variable's."""
        del path
        return from_torch_layout(array)

    @nn.nowrap
    def export_layout(self, path: tuple[str, ...], array: np.ndarray) -> np.ndarray:
        """Returns an array of ours with the axes of such a file; the inverse of `import_layout`."""
        del path
        return to_torch_layout(array)

    @nn.nowrap
    def resize_param(
        self, path: tuple[str, ...], array: np.ndarray, shape: tuple[int, ...]
    ) -> np.ndarray:
        """Resizes an array of a file, in our layout, to the `shape` of the variable at `path`.

        This is for position embeddings, which are resized to the grid of this backbone. The caller
        refuses a result that does not have the shape `shape`; by default, that is every array.
        """
        del path, shape
        return array

    @nn.nowrap
    def stated_settings(
        self, arrays: Mapping[str, np.ndarray], config: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Returns the settings that a file states besides names and shapes, by name.

        Weights that state other values than this backbone's are refused. By default, none is known.

        Args:
          arrays: the arrays of the file by name, in the layout of the file.
          config: Hugging Face's ``config.json`` beside the file, or nothing.
        """
        del arrays, config
        return {}
