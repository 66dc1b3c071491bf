"""The data sets of a config: found by the name of their module, opened and prepared."""

import importlib
import importlib.util
from types import ModuleType
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from wsss_jax.data.source import Source
from wsss_jax.errors import UserError

if TYPE_CHECKING:
    from wsss_jax.data.prepared import RecordBuilder  # imports TFDS

# The module of a builder whose name says more than the module's.
_MODULES = {"voc2012_wsss": "voc"}


def open_source(data: ConfigDict, split: str) -> Source:
    """The records of `split`, prepared on first use.

    Args:
      data: the data section: `builder` names a module of ``wsss_jax.data`` with the functions
        ``make_builder(data, split)`` and ``open_source(data, split)``; the rest are that builder's
        options.
      split: the split's name.

    Raises:
      UserError: no such builder or split, or the builder refuses the data.
    """
    return _module(data).open_source(data, split)


def make_builder(data: ConfigDict, split: str) -> "RecordBuilder":
    """What `open_source` would open or prepare: ids and classes without reading an image.

    Raises:
      UserError: no such builder or split, or the folder or its lists are not as they should be.
    """
    return _module(data).make_builder(data, split)


def _module(data: ConfigDict) -> ModuleType:
    builder = str(data.builder)
    name = _MODULES.get(builder, builder)
    path = f"wsss_jax.data.{name}"
    if name.isidentifier() and path != __name__ and importlib.util.find_spec(path) is not None:
        module = importlib.import_module(path)
        if hasattr(module, "make_builder"):
            return module
    raise UserError(
        f"expected data.builder to be voc2012_wsss, shapes or another module of wsss_jax.data,"
        f" found {builder!r}: set data.builder"
    )
