"""What a data set is: typed settings, and the records of its splits.

A data set is one module: a frozen dataclass derived from `DataSettings`, whose fields are its
settings. A recipe's section ``data`` names it under ``builder``, by the name of a module of
`wsss_jax.data.sets` or by the dotted name of a module elsewhere.
"""

import abc
import dataclasses
import os
from pathlib import Path
from typing import ClassVar

from wsss_jax.data.prepared import RecordBuilder, prepare
from wsss_jax.data.source import Source
from wsss_jax.settings import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings(Settings, abc.ABC):
    """A data set; its fields are its settings.

    The class attribute ``location`` names the settings that say where the data lie. A record of a
    run leaves them out, for it holds a digest of what lies there.

    Attributes:
      data_dir: where prepared records go; "" is $WSSS_JAX_DATA, else ~/.cache/wsss_jax.
    """

    room: ClassVar[str] = "wsss_jax.data.sets"
    key: ClassVar[str] = "builder"
    location: ClassVar[frozenset[str]] = frozenset({"data_dir"})

    data_dir: str = ""

    @property
    def prepared_root(self) -> Path:
        """The folder of prepared records, see `data_dir`."""
        chosen = self.data_dir or os.environ.get("WSSS_JAX_DATA") or "~/.cache/wsss_jax"
        return Path(chosen).expanduser()

    @abc.abstractmethod
    def builder(self, split: str) -> RecordBuilder:
        """What makes the records of `split`: ids and classes are known, no image is read yet.

        Raises:
          UserError: no such split, or the data are not as they should be.
        """

    def open(self, split: str) -> Source:
        """The records of `split`; they are prepared on first use and whenever the data changed.

        Raises:
          UserError: no such split, or the data are not as they should be.
        """
        return prepare(self.builder(split))
