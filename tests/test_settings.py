"""Sections of a recipe become typed objects, strictly, and back."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict, FieldReference

from wsss_jax import settings
from wsss_jax.errors import UserError
from wsss_jax.settings import Settings, supplied


class Body(nn.Module):
    """A network.

    Attributes:
      width: channels.
      dtype: of the convolutions.
    """

    room: ClassVar[str] = "tests.toys"
    width: int = 32
    dtype: Any = supplied(default=jnp.float32)


class Wide(Body):
    """The network itself; `Body` stands for all of them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner(Settings):
    """Of a part.

    Attributes:
      low, high: bounds.
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise UserError(f"expected low up to high, found {self.low:g} and {self.high:g}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer(Settings):
    """Of everything.

    Attributes:
      classes: supplied by the program.
      steps: how many; 0 for none,
        counted from one.
      rate: of learning.
      kind: one of two.
      scales: of the image.
      pair: two numbers.
      alpha: a number, or a reference.
      needs: names of stages.
      inner: a part.
      size: two numbers, or none.
      spans: pairs of numbers.
    """

    classes: int = supplied()
    steps: int
    rate: float = 0.5
    kind: Literal["blur", "noise"] = "blur"
    scales: tuple[float, ...] = (0.5, 1.0)
    pair: tuple[int, float] = (1, 2.0)
    alpha: float | str = 1.0
    flip: bool = True
    needs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    inner: Inner = Inner()
    size: tuple[int, int] | tuple[()] = ()
    spans: tuple[tuple[int, float], ...] = ()


def outer(**changed: Any) -> Outer:
    return Outer.from_config({"steps": 3, **changed}, "train", classes=2)


def test_values_take_the_types_of_the_fields():
    got = outer(rate=1, scales=[1, 2], pair=[3, 4], inner=ConfigDict({"high": 2}))
    assert (got.classes, got.steps) == (2, 3)
    assert isinstance(got.rate, float) and got.scales == (1.0, 2.0)
    assert all(isinstance(scale, float) for scale in got.scales)
    assert got.pair == (3, 4.0) and isinstance(got.pair[0], int)
    assert got.inner == Inner(high=2.0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"stesp": 1}, "train.stesp is not a setting of Outer; did you mean steps?"),
        ({"zzz": 1}, "train.zzz is not a setting of Outer (there are alpha, flip,"),
        ({"classes": 3}, "train.classes is not a setting"),
        ({"inner": {"lwo": 1}}, "train.inner.lwo is not a setting of Inner; did you mean low?"),
        ({"steps": 1.5}, "expected train.steps to be a whole number, found 1.5"),
        ({"steps": True}, "expected train.steps to be a whole number, found True"),
        ({"steps": "4"}, "expected train.steps to be a whole number, found '4'"),
        ({"rate": "fast"}, "expected train.rate to be a number, found 'fast'"),
        ({"rate": float("nan")}, "expected train.rate to be a number, found nan"),
        ({"scales": (1.0, float("inf"))}, "train.scales to be a tuple"),
        ({"flip": 1}, "expected train.flip to be True or False, found 1"),
        ({"kind": "nois"}, "one of 'blur', 'noise', found 'nois'; did you mean noise?"),
        ({"scales": 1.0}, "train.scales to be a tuple, each element a number, found 1.0"),
        ({"scales": (1.0, "x")}, "train.scales to be a tuple"),
        ({"scales": "abc"}, "train.scales to be a tuple"),
        ({"pair": (1,)}, "train.pair to be a tuple of 2: a whole number, a number"),
        (
            {"size": 1},
            "expected train.size to be (a whole number, a whole number) or (), found 1",
        ),
        ({"spans": 1}, "train.spans to be a tuple, each element (a whole number, a number), fo"),
        ({"alpha": (1,)}, "train.alpha to be a number or text"),
        ({"needs": {"a": 1}}, "train.needs.a to be text, found 1"),
        ({"inner": 3}, "train.inner to be a section with the settings of Inner, found 3"),
        ({"inner": {"low": 2}}, "train.inner: expected low up to high, found 2 and 1"),
    ],
)
def test_mistakes_are_named(changed: dict[str, Any], message: str):
    with pytest.raises(UserError) as error:
        outer(**changed)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_setting_without_default_has_to_be_there():
    with pytest.raises(UserError, match=r"expected train\.steps \(a whole number\), found none"):
        Outer.from_config({}, "train", classes=1)
    with pytest.raises(UserError, match=r"expected steps .*found none"):
        Outer.defaults()


def test_defaults_hold_every_setting_and_read_back_the_same():
    section: Any = Outer.defaults(steps=7, inner={"low": 0.5})
    assert set(section) == set(settings.settings_of(Outer))
    assert section.inner.to_dict() == {"low": 0.5, "high": 1.0}
    assert Outer.from_config(section, classes=4) == Outer(classes=4, steps=7, inner=Inner(low=0.5))


def test_references_stay_references():
    rate = FieldReference(0.25)
    low = ConfigDict({"low": rate})
    section: Any = Outer.defaults(steps=1, rate=rate, inner=low)
    rate.set(0.75)
    assert section.rate == 0.75 and section.inner.low == 0.75


@given(
    st.builds(
        Outer,
        classes=st.just(1),
        steps=st.integers(-5, 5),
        rate=st.floats(allow_nan=False, allow_infinity=False),
        kind=st.sampled_from(["blur", "noise"]),
        scales=st.lists(st.floats(0, 9)).map(tuple),
        pair=st.tuples(st.integers(), st.floats(0, 1)),
        alpha=st.floats(0, 9) | st.text(),
        flip=st.booleans(),
        needs=st.dictionaries(st.from_regex(r"[a-z]+", fullmatch=True), st.text()),
        inner=st.floats(0, 1).map(lambda low: Inner(low=low)),
    )
)
def test_to_config_is_the_inverse_of_reading(one: Outer):
    assert Outer.from_config(settings.to_config(one), classes=1) == one


def test_every_setting_has_its_line_of_documentation():
    found = settings.settings_of(Outer)
    assert "classes" not in found
    assert found["steps"].doc == "how many; 0 for none, counted from one."
    assert found["rate"].default == 0.5
    assert settings.settings_of(Inner)["high"].doc == "bounds."
    assert settings.settings_of(Inner)["low"].doc == "bounds."


def test_a_module_has_settings_too():
    assert list(settings.settings_of(Body)) == ["width"]
    body = settings.read(Body, {"name": f"{__name__}:Wide", "width": 4}, dtype=jnp.bfloat16)
    assert (body.width, body.dtype) == (4, jnp.bfloat16)
    section = settings.to_config(body)
    # This module lies outside the room and has no other kind, so that its dotted name suffices.
    assert section.to_dict() == {"name": __name__, "width": 4}
    assert settings.read(Body, section, dtype=jnp.bfloat16) == body


def test_a_kind_needs_no_name_of_its_own():
    assert settings.read(Wide, {"width": 4}).width == 4
    assert set(settings.complete(Wide, {"width": 4})) == {"name", "width"}
    named = settings.to_config(Wide(width=4))
    assert settings.read(Wide, named) == Wide(width=4)
    with pytest.raises(UserError, match=r"expected name to be one of"):
        settings.read(Wide, {"name": "nosuch"})


def test_an_unknown_kind_names_the_known_ones(tmp_path, monkeypatch):
    for name in ("nosuch", "no.such", "../nosuch", ""):
        found = re.escape(repr(name))
        with pytest.raises(UserError, match=rf"expected net\.name to be one of .*, found {found}"):
            settings.read(Body, {"name": name}, "net")
    with pytest.raises(UserError, match="found none"):
        settings.read(Body, {"width": 3}, "net")
    # A mistake inside somebody's module is shown as itself, not as a module that is missing.
    (tmp_path / "broken_kind.py").write_text("import no_such_thing_anywhere\n")
    (tmp_path / "empty_kind.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_thing_anywhere"):
        settings.kind_of(Body, "broken_kind:Body")
    with pytest.raises(TypeError, match="expected one Body in the module empty_kind, found none"):
        settings.kind_of(Body, "empty_kind:Body")
