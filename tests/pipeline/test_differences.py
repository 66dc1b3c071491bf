"""What a dry run tells first."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from wsss_jax.pipeline.differences import differences
from wsss_jax.settings import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part(Settings):
    """Of a part.

    Attributes:
      low, high: bounds.
    """

    low: float = 0.0
    high: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network(Settings):
    """What all networks have.

    Attributes:
      width: channels.
    """

    room: ClassVar[str] = "wsss_jax.models"
    width: int = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deep(Network):
    """A network.

    Attributes:
      depth: layers.
    """

    depth: int = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flat(Network):
    """Another network."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work(Settings):
    """Of everything.

    Attributes:
      steps: how many.
      scales: of the image.
      network: of many kinds.
      fallback: likewise, with a default.
      part: with a default of its own.
      other: a part, or none.
      needs: names of stages.
      parts: by name.
    """

    steps: int
    scales: tuple[float, ...] = (0.5, 1.0)
    network: Network
    fallback: Network = Deep(depth=101)
    part: Part = Part(low=0.5)
    other: Part | None = None
    needs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    parts: Mapping[str, Part] = dataclasses.field(default_factory=dict)


DEEP, FLAT = f"{__name__}:Deep", f"{__name__}:Flat"


def told(**changed: object) -> dict[str, tuple[object, str]]:
    values = {"steps": 3, "network": {"name": DEEP}, **changed}
    found = list(differences(Work.defaults(**values).lock(), Work))
    assert len({path for path, _, _ in found}) == len(found)
    return {path: (value, default) for path, value, default in found}


REQUIRED: dict[str, tuple[object, str]] = {"steps": (3, ""), "network.name": (DEEP, "")}


def test_what_has_no_default_is_told_always():
    assert told() == REQUIRED
    assert told(scales=(0.5, 1)) == REQUIRED  # equal as a value


def test_other_values_are_told_with_their_defaults():
    got = told(
        scales=(2.0,), network={"name": DEEP, "depth": 101}, part={"low": 0.0}, needs={"a": "b"}
    )
    assert got == REQUIRED | {
        "scales": ((2.0,), "(0.5, 1.0)"),
        "network.depth": (101, "50"),
        # The default of the setting, not that of the part's class.
        "part.low": (0.0, "0.5"),
        "needs.a": ("b", ""),
    }


def test_parts_that_are_there_by_choice():
    got = told(other={"high": 2.0}, parts={"x": {"low": 1.0}}, fallback={"name": FLAT, "width": 8})
    assert got == REQUIRED | {
        "other.high": (2.0, "1.0"),
        "parts.x.low": (1.0, "0.0"),
        "fallback.name": (FLAT, repr(DEEP)),
        "fallback.width": (8, "32"),
    }
    assert told(fallback={"name": DEEP, "depth": 50})["fallback.depth"] == (50, "101")
