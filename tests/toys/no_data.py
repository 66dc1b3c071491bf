"""A data set outside the package that has no images, for recipes of stages that read none."""

import dataclasses
from typing import ClassVar

from wsss_jax.data.prepared import RecordBuilder
from wsss_jax.data.sets.base import DataSettings
from wsss_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoData(DataSettings):
    """Nothing.

    Attributes:
      root: where nothing lies.
    """

    location: ClassVar[frozenset[str]] = DataSettings.location | {"root"}

    root: str = ""

    def builder(self, split: str) -> RecordBuilder:
        raise UserError(f"expected a stage without images, found the split {split}")
