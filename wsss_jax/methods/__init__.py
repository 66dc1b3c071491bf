"""Training methods: one file each."""

import importlib
from collections.abc import Mapping
from typing import Any

from wsss_jax.errors import UserError
from wsss_jax.settings import read


def build_method(config: Mapping[str, Any], num_classes: int) -> Any:
    """The method that ``config["name"]``, a module of `wsss_jax.methods`, and its fields describe.

    Raises:
      UserError: no such method, or a field it does not have.
    """
    fields = dict(config)
    name = fields.pop("name", None)
    try:
        method = importlib.import_module(f"wsss_jax.methods.{name}").Method
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(
            f"expected the name of a method, found {name!r}: name a file of wsss_jax/methods, such"
            " as cam or seam"
        ) from error
    return read(method, fields, "method", num_classes=num_classes)
