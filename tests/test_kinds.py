"""A section names its kind; a mistake in the name or in the class says what to do."""

import abc
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from wsss_jax import settings
from wsss_jax.errors import UserError
from wsss_jax.settings import Settings

KINDS = """
import abc
import dataclasses
from typing import ClassVar

from tests.test_kinds import Shape


@dataclasses.dataclass(frozen=True, kw_only=True)
class Circle(Shape):
    radius: float = 1.0

    def area(self):
        return 3.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Square(Shape):
    side: float = 1.0


class Plain(Shape):
    sides: ClassVar[int] = 4
    height: float = 1.0

    def area(self):
        return self.height


class Fixed(Shape):
    sides: ClassVar[int] = 4

    def area(self):
        return 1.0
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape(Settings, abc.ABC):
    """The base of shapes."""

    room: ClassVar[str] = "tests.toys"

    @abc.abstractmethod
    def area(self) -> float:
        """Its area."""


@pytest.fixture
def kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module `own_shapes`, and a script that must not run."""
    (tmp_path / "own_shapes.py").write_text(KINDS)
    (tmp_path / "old_shapes.py").write_text("from __future__ import annotations\n" + KINDS)
    (tmp_path / "a_script.py").write_text("class Triangle(Shape): pass\nraise SystemExit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("own_shapes", "old_shapes"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("module", ["own_shapes", "old_shapes"])
@pytest.mark.usefixtures("kinds")
def test_a_class_that_cannot_be_a_kind_says_why(module: str):
    assert settings.kind_of(Shape, f"{module}:Circle").__name__ == "Circle"
    assert settings.kind_of(Shape, f"{module}:Fixed").__name__ == "Fixed"
    with pytest.raises(TypeError, match=r"^Square lacks area: every Shape has to define that$"):
        settings.kind_of(Shape, f"{module}:Square")
    with pytest.raises(TypeError, match=r"^class Plain is no dataclass, so its height .*: decora"):
        settings.kind_of(Shape, f"{module}:Plain")


@pytest.mark.usefixtures("kinds")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "own_shapes:Cirle",
            "expected view.name to name a Shape of the module own_shapes (own_shapes:Circle,"
            " own_shapes:Square, own_shapes:Plain, own_shapes:Fixed), found 'own_shapes:Cirle'; did"
            " you mean own_shapes:Circle?",
        ),
        (
            "no.shapes",
            "found 'no.shapes': there is no module no.shapes in the working directory, beside the"
            " recipe or among the installed packages",
        ),
        ("no_shapes:Circle", "found 'no_shapes:Circle': there is no module no_shapes in the wor"),
        (
            "own_shapes",
            "found 'own_shapes': write own_shapes:Circle or own_shapes:Square or own_shapes:Plain",
        ),
        ("a_script", "found 'a_script': write a_script:Triangle"),
    ],
)
def test_a_name_of_no_kind_says_what_to_write(name: str, message: str):
    with pytest.raises(UserError) as error:
        settings.read(Shape, {"name": name}, "view")
    assert message in str(error.value) and "\n" not in str(error.value)
