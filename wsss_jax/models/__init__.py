"""Networks: pure functions of their variables.

A backbone is a module of this package: it exports `Backbone` (a Flax module whose call
``(x, valid=None, *, train=False)`` returns the feature maps ``conv3`` of stride 4, ``conv4``,
``conv5`` and ``conv6``; ``conv2``, if any, is the stem's, of stride 4 too) and regular expressions
for the beginning of parameter paths, such as ``backbone/conv1a/``: `FROZEN` that no recipe trains,
and `NORMS`, the batch norm, trained only where the backbone has a ``bn_momentum`` above 0. Where
the former depend on the description's fields, it exports ``frozen(fields) -> tuple[str, ...]``.
"""

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import flax.linen as nn

from wsss_jax.errors import UserError


def backbone_module(name: str) -> ModuleType:
    """The module of this package that defines the backbone called `name`.

    Raises:
      UserError: there is no such module, or it defines no backbone.
    """
    path = f"{__name__}.{name}"
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:
            raise
        module = None
    if module is None or not hasattr(module, "Backbone"):
        raise UserError(
            f"expected the name of a backbone, found {name!r}: name a file of wsss_jax/models that"
            " exports Backbone, such as resnet38, mobilenet_v2 or tiny"
        )
    return module


def build(backbone: Mapping[str, Any], **overrides: Any) -> nn.Module:
    """A backbone from its description: ``name`` and the fields of its class.

    Args:
      backbone: mapping (a ConfigDict will do) with ``name``; the rest goes to the constructor.
      **overrides: fields that win over those of `backbone` (the submodule's name, for instance).

    Raises:
      UserError: the name or a field is unknown.
    """
    fields: dict[str, Any] = dict(backbone)
    name = str(fields.pop("name", ""))
    cls = backbone_module(name).Backbone
    fields.update(overrides)
    known = set(cls.__dataclass_fields__) - {"parent"}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise UserError(
            f"expected fields of the backbone {name!r} among {sorted(known - {'name'})}, found"
            f" {unknown}: remove or correct them"
        )
    return cls(**fields)


def frozen_patterns(backbone: Mapping[str, Any]) -> tuple[str, ...]:
    """Regular expressions for the beginning of the paths of parameters that stay as they are."""
    fields = dict(backbone)
    module = backbone_module(str(fields.get("name", "")))
    frozen = module.frozen(fields) if hasattr(module, "frozen") else module.FROZEN
    return frozen if fields.get("bn_momentum") else (*frozen, *module.NORMS)
