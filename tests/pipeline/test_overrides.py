"""Values of sections that typed classes read, replaced on the command line."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import pytest
from ml_collections import ConfigDict, FieldReference

from wsss_jax.errors import UserError
from wsss_jax.models.base import Backbone
from wsss_jax.pipeline.config import read_recipe
from wsss_jax.pipeline.overrides import replace
from wsss_jax.settings import Settings, complete, read


@dataclasses.dataclass(frozen=True, kw_only=True)
class View(Settings):
    """A part.

    Attributes:
      low, high: bounds.
    """

    low: float = 0.0
    high: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work(Settings):
    """What all kinds have.

    Attributes:
      rate: of learning.
      split: of the data.
    """

    room: ClassVar[str] = "wsss_jax.stages"
    key: ClassVar[str] = "type"
    rate: float = 0.5
    split: str = "train"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plain(Work):
    """One kind.

    Attributes:
      steps: how many.
      alpha: a number or a reference.
      kind: one of two.
      scales: of the image.
      names: of things.
      limit: a number, or none.
      power: a power.
      near, far: parts.
      flip: whether.
      needs: names of stages.
      view: a part.
      strong: a part, or none.
      views: parts by name.
    """

    steps: int = 3
    alpha: float | str = "from:threshold"
    kind: Literal["blur", "noise"] = "blur"
    scales: tuple[float, ...] = (0.5, 1.0)
    names: tuple[str, ...] = ("a",)
    limit: float | None = None
    power: float = 2.0
    near: View = View(high=0.5)
    far: View = View()
    flip: bool = True
    needs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    view: View = View()
    strong: View | None = None
    views: Mapping[str, View] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Other(Work):
    """Another kind.

    Attributes:
      flip: how often.
      steps: how many.
      beta: a power.
      power: a power.
      near, far: parts.
    """

    flip: int = 2
    steps: int = 9
    beta: float = 8.0
    power: float = 3.0
    near: View = View(high=0.75)
    far: View = View(low=0.25)


PLAIN, OTHER = f"{__name__}:Plain", f"{__name__}:Other"
READERS = {"work": Work, "more": Work}


def recipe() -> Any:
    split = FieldReference("train")
    return ConfigDict(
        dict(
            seed=0,
            work=Work.defaults(PLAIN, split=split, steps=5),
            more=Work.defaults(OTHER, split=split),
        )
    ).lock()


def replaced(*overrides: str) -> Any:
    config = recipe()
    replace(config, [f"--config.{override}" for override in overrides], READERS)
    return config


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("steps=7", 7),
        ("steps=-1", -1),
        ("rate=1", 1.0),
        ("alpha=2", 2.0),
        ("alpha=from:chosen", "from:chosen"),
        ("kind=noise", "noise"),
        ("scales=(0.5, 1)", (0.5, 1.0)),
        ("scales=0.5,1", (0.5, 1.0)),
        ("scales=[2]", (2.0,)),
        ("scales=2", (2.0,)),
        ("scales=()", ()),
        ("names=a,b c", ("a", "b c")),
        ("names=('a', 'b')", ("a", "b")),
        ("names=1", ("1",)),
        ("limit=0.5", 0.5),
        ("limit=None", None),
        ("flip=false", False),
        ("flip=False", False),
        ("flip=0", False),
        ("split=2012", "2012"),
        ("split=None", "None"),
        ("needs={'masks': 'walk'}", {"masks": "walk"}),
        ("strong={'low': 1}", {"low": 1.0, "high": 1.0}),
    ],
)
def test_texts_take_the_types_of_the_settings(override: str, value: Any):
    name = override.partition("=")[0]
    config = replaced(f"work.{override}")
    got = config.work[name].to_dict() if isinstance(value, dict) else config.work[name]
    assert got == value and type(got) is type(value)
    assert dataclasses.asdict(read(Work, config.work))[name] == value
    before = recipe().work.to_dict()
    assert {k: v for k, v in config.work.to_dict().items() if k != name} == {
        k: v for k, v in before.items() if k != name
    }


def test_names_of_a_mapping_are_free():
    config = replaced("work.needs.masks=walk", "work.views.near={'high': 0.5}")
    work: Any = read(Work, config.work)
    assert work.needs == {"masks": "walk"} and work.views == {"near": View(high=0.5)}
    replace(config, ["--config.work.views.near.low=0.25"], READERS)
    assert config.work.views.near.to_dict() == {"low": 0.25, "high": 0.5}
    assert config.is_locked and config.work.needs.is_locked


def test_a_value_that_stages_share_is_set_for_all():
    config = replaced("more.split=val")
    assert config.work.split == config.more.split == "val"


def test_switches_and_the_last_of_several_values():
    config = recipe()
    given = ["--noconfig.work.flip", "--config.seed=1", "--config.work.rate=x"]
    replace(config, [*given, "--config.seed=2", "--config.work.rate=3"], READERS)
    assert (config.work.flip, config.seed, config.work.rate) == (False, 2, 3.0)
    replace(config, ["--config.work.flip"], READERS)
    assert config.work.flip is True


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("work.stpes=1", "the config has no value work.stpes; did you mean work.steps?"),
        ("work.view.lwo=1", "no value work.view.lwo; did you mean work.view.low?"),
        ("work.beta=1", "the config has no value work.beta"),
        ("wrok.steps=1", "no value wrok.steps; did you mean work.steps?"),
        ("work.steps=1.5", "expected --config.work.steps to be a whole number, found '1.5'"),
        ("work.rate=inf", "expected --config.work.rate to be a number, found 'inf'"),
        ("work.rate=nan", "expected --config.work.rate to be a number, found 'nan'"),
        ("work.rate=1e999", "expected --config.work.rate to be a number, found '1e999'"),
        ("work.steps", "expected --config.work.steps to be a whole number, found no value"),
        ("work.kind=nois", "one of 'blur', 'noise', found 'nois'; did you mean noise?"),
        ("work.scales=(1, 'x')", "--config.work.scales to be a tuple, each element a number"),
        ("work.limit=x", "expected --config.work.limit to be a number or None, found 'x'"),
        ("work.view=3", "to be a section with the settings of View, found '3'"),
        (
            "work.view={'lwo': 1}",
            "--config.work.view.lwo is not a setting of View; did you mean low?",
        ),
        ("work.views.near={'low': 'x'}", "--config.work.views.near.low to be a number, found 'x'"),
        ("work.type=tests.pipeline.nothing", "--config.work.type to be one of"),
        ("work=3", "--config.work to be a section"),
    ],
)
def test_mistakes_name_the_path_as_it_was_typed(override: str, message: str):
    with pytest.raises(UserError) as error:
        replaced(override)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_another_kind_keeps_what_both_have_and_the_recipe_changed():
    config = replaced("work.beta=4", f"work.type={OTHER}", "work.rate=2")
    # `flip` is of another type there; `split` is shared; the rest are its own defaults.
    assert config.work.to_dict() == {
        "type": OTHER,
        "rate": 2.0,
        "split": "train",
        "steps": 5,
        "flip": 2,
        "beta": 4.0,
        "power": 3.0,
        "near": {"low": 0.0, "high": 0.75},
        "far": {"low": 0.25, "high": 1.0},
    }
    replace(config, ["--config.more.split=mine"], READERS)
    assert config.work.split == "mine"
    assert replaced(f"work.type={PLAIN}").to_dict() == recipe().to_dict()


def test_another_kind_keeps_parts_that_the_recipe_changed():
    config = recipe()
    with config.work.unlocked():
        config.work.far.high = 2.0
    replace(config, [f"--config.work.type={OTHER}"], READERS)
    assert config.work.far.to_dict() == {"low": 0.0, "high": 2.0}
    assert config.work.near.to_dict() == {"low": 0.0, "high": 0.75}


@pytest.mark.parametrize("order", [1, -1])
def test_values_of_the_command_line_are_those_of_the_new_kind(order: int):
    """Even where they are the defaults of the old kind, and in any order."""
    given = ["work.power=2", f"work.type={OTHER}", "work.near.high=0.5"]
    work = replaced(*given[::order]).work
    assert (work.type, work.power, work.near.high) == (OTHER, 2.0, 0.5)
    with pytest.raises(UserError, match=r"the config has no value work\.kind"):
        replaced(*["work.kind=noise", f"work.type={OTHER}"][::order])


def test_a_backbone_of_another_kind_has_its_own_defaults():
    changed: Any = read_recipe(
        "seam_shapes", ["--config.train.method.backbone.name=examples.token_contrast"]
    )
    backbone = changed.train.method.backbone
    assert backbone.to_dict() == complete(Backbone, {"name": "examples.token_contrast"}).to_dict()
