"""The contract of data sets: typed settings, and the records of each split.

A data set is one module with a frozen dataclass that derives from `DataSettings` and whose fields
are the settings. The section ``data`` of a recipe names it under ``builder``, either by the name of
a module in `wsss_jax.data.sets` or by the dotted name of a module elsewhere.
"""

import abc
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from wsss_jax.data.prepared import RecordBuilder, prepare
from wsss_jax.data.source import Source
from wsss_jax.errors import UserError, refuse_addresses
from wsss_jax.settings import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings(Settings, abc.ABC):
    """A data set, whose fields are its settings.

    The class attribute ``location`` names the settings that say where the data are. The record of a
    run leaves these settings out, because it contains a digest of the data themselves.

    Attributes:
      data_dir: the folder of prepared records; "" means $WSSS_JAX_DATA or, if that is not set,
        ~/.cache/wsss_jax.
    """

    room: ClassVar[str] = "wsss_jax.data.sets"
    key: ClassVar[str] = "builder"
    location: ClassVar[frozenset[str]] = frozenset({"data_dir"})

    published: ClassVar[Mapping[str, tuple[int, int]]] = {}
    """The numbers of images and of classes of splits, for estimates without the data."""

    data_dir: str = ""

    @property
    def prepared_root(self) -> Path:
        """The folder of prepared records; see `data_dir`."""
        chosen = self.data_dir or os.environ.get("WSSS_JAX_DATA") or "~/.cache/wsss_jax"
        refuse_addresses(chosen, "data.data_dir or WSSS_JAX_DATA")
        try:
            return Path(chosen).expanduser()
        except RuntimeError as error:  # This user has no home.
            raise UserError(
                f"expected a home for the prepared records, found none ({error}): set data.data_dir"
            ) from error

    @abc.abstractmethod
    def builder(self, split: str) -> RecordBuilder:
        """Returns the builder of `split`, which knows ids and classes but has read no image yet.

        Raises:
          UserError: there is no such split, or the data are not as they should be.
        """

    def open(self, split: str) -> Source:
        """Opens the records of `split`, preparing them on first use and after the data changed.

        Raises:
          UserError: there is no such split, or the data are not as they should be.
        """
        return prepare(self.builder(split))
