"""What nothing reads in a recipe is refused: every misspelt key, every value of a wrong type."""

import copy
import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from tests.toys.adding_stages import adding_config
from wsss_jax.errors import UserError
from wsss_jax.pipeline import graph
from wsss_jax.pipeline.config import load_config, read_recipe, shipped_recipes
from wsss_jax.pipeline.recipe import general_settings
from wsss_jax.settings import kind_of, settings_of
from wsss_jax.stages.base import Stage

# Sections whose keys are free: names of inputs, of thresholds and of evaluators.
FREE = ("needs", "compare", "evaluators")
# No setting of any class is of this type.
WRONG: Any = ((),)


def misspelt(name: str) -> Iterator[str]:
    """The name with one letter dropped, with two swapped, and with one added."""
    draw = random.Random(name)
    place = draw.randrange(len(name))
    yield name[:place] + name[place + 1 :]
    places = [i for i in range(len(name) - 1) if name[i] != name[i + 1]]
    if places:
        i = draw.choice(places)
        yield name[:i] + name[i + 1] + name[i] + name[i + 2 :]
    place = draw.randrange(len(name) + 1)
    yield name[:place] + draw.choice("aeinrst") + name[place:]


def keys(section: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all keys of a section that its class reads, at every depth."""
    for name, value in section.items():
        if not (path and path[-1] in FREE):
            yield (*path, name)
        if isinstance(value, dict):
            yield from keys(value, (*path, name))


def kinds(section: Mapping[str, Any], path: tuple[str, ...]) -> tuple[Any, ...]:
    """What the classes along a path are called, and its key: the same for the same setting."""
    found: list[Any] = []
    for name in path:
        found.append((section.get("type"), section.get("name"), section.get("builder")))
        inner = section[name]
        section = inner if isinstance(inner, dict) else {}
    return (*found, path)


def changed(section: dict[str, Any], path: tuple[str, ...], name: str, value: Any) -> dict:
    """A copy of a section where the key at the end of `path` is called `name` and has `value`."""
    result = copy.deepcopy(section)
    part = result
    for step in path[:-1]:
        part = part[step]
    del part[path[-1]]
    part[name] = value
    return result


def sections() -> Iterator[tuple[dict[str, Any], tuple[str, ...], Any]]:
    """Every setting of the sections of all shipped recipes, once: section, path, its value."""
    seen = set()
    for recipe in shipped_recipes():
        config: Any = load_config(recipe)
        for stage in config.stages:
            section = config[stage].to_dict()
            for path in keys(section):
                kind = kinds(section, path)
                if kind not in seen:
                    seen.add(kind)
                    value: Any = section
                    for step in path:
                        value = value[step]
                    yield section, path, value


ALL = list(sections())


def read(section: dict[str, Any]) -> None:
    Stage.from_config(section, "it")


def names(text: str, key: str) -> bool:
    """Whether a message has the key as a word of its own."""
    return re.search(rf"(?<!\w){key}(?!\w)", text) is not None


def test_there_is_much_to_misspell():
    """The test below is worth something: it visits stages, methods, backbones and more."""
    paths = {path for _, path, _ in ALL}
    assert len(ALL) > 250
    for path in (("method", "backbone", "width"), ("augment", "crop"), ("upsample",)):
        assert path in paths


def test_every_misspelt_setting_of_every_section_is_refused_by_name():
    for section, path, value in ALL:
        part: Any = section
        for step in path[:-1]:
            part = part[step]
        for name in misspelt(path[-1]):
            if name in part or not name:
                continue
            with pytest.raises(UserError) as error:
                read(changed(section, path, name, value))
            text = str(error.value)
            assert names(text, path[-1]) and "\n" not in text, (path, name, text)


def test_every_value_of_a_wrong_type_is_refused_by_name():
    for section, path, _ in ALL:
        with pytest.raises(UserError) as error:
            read(changed(section, path, path[-1], WRONG))
        assert names(str(error.value), path[-1]), (path, str(error.value))


@pytest.mark.parametrize("recipe", shipped_recipes())
def test_every_misspelt_general_setting_is_refused_by_name(recipe: str):
    config: Any = load_config(recipe)
    for key in [k for k in config if k not in config.stages]:
        for name in misspelt(key):
            general = {k: v for k, v in config.items() if k != key}
            with pytest.raises(UserError, match=rf"\b{key}\b"):
                graph.stages(ConfigDict({**general, name: config[key]}))
        with pytest.raises(UserError, match=rf"\b{key}\b"):
            graph.stages(ConfigDict({**dict(config.items()), key: WRONG}))


def test_every_misspelt_need_is_refused_by_name():
    seen = set()
    for recipe in shipped_recipes():
        plain: Any = load_config(recipe).to_dict()
        for stage in plain["stages"]:
            kind = plain[stage]["type"]
            for need, other in plain[stage].get("needs", {}).items():
                if kind == "report" or (kind, need) in seen:
                    continue
                seen.add((kind, need))
                for name in misspelt(need):
                    needs = plain[stage]["needs"] | {name: other}
                    del needs[need]
                    config = ConfigDict(plain | {stage: plain[stage] | {"needs": needs}})
                    with pytest.raises(UserError) as error:
                        graph.check(graph.stages(config))
                    assert names(str(error.value), need), (stage, name, str(error.value))
    assert len(seen) > 10


def test_sections_of_stages_that_are_not_listed_may_stay():
    config: Any = adding_config()
    config.stages = ("a",)
    assert general_settings(config).stages == ("a",)
    config.authors = ConfigDict({"author": "somebody"})
    with pytest.raises(UserError, match=r"^authors is neither a setting of the recipe .*; remove"):
        general_settings(config)
    del config.authors
    config.sede = 1
    with pytest.raises(UserError, match=r"sede is neither a setting .*; did you mean seed"):
        general_settings(config)


def test_a_general_setting_that_a_recipe_leaves_out_can_be_set(tmp_path: Path):
    (tmp_path / "short.py").write_text(
        "from configs import cam_shapes\n"
        "def get_config():\n"
        "    c = cam_shapes.get_config()\n"
        "    del c.seed\n"
        "    return c\n"
    )
    short = str(tmp_path / "short.py")
    assert general_settings(read_recipe(short)).seed == 0
    assert general_settings(read_recipe(short, ["--config.seed=3"])).seed == 3
    for seed in ("-1", "99999999999"):
        with pytest.raises(UserError, match=rf"expected a seed of 0 to 2147483647, found {seed}"):
            general_settings(read_recipe(short, [f"--config.seed={seed}"]))
    with pytest.raises(UserError, match=r"expected --config\.seed to be a whole number, found 'x'"):
        read_recipe(short, ["--config.seed=x"])


def test_a_default_of_every_kind_of_stage_is_documented():
    for kind in ("train", "infer_cam", "crf", "evaluate", "predict", "random_walk"):
        for name, setting in settings_of(kind_of(Stage, kind)).items():
            assert setting.doc, f"{kind}.{name} has no description"
