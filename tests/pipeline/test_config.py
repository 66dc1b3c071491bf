"""Recipes and the values given on the command line."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from tests.toys.fake_recipe import write_recipe
from wsss_jax.errors import UserError
from wsss_jax.pipeline.config import find_recipe, load_config, read_recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path)


def _values(recipe: Path, *overrides: str) -> dict:
    return cast(Any, read_recipe(str(recipe), overrides)).work.to_dict()


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("--config.work.value=4", "value", 4),
        ("--config.work.rate=1", "rate", 1.0),
        ("--config.work.rate=5e-4", "rate", 5e-4),
        ("--config.work.flip=false", "flip", False),
        ("--noconfig.work.flip", "flip", False),
        ("--config.work.scales=(0.5,1,2)", "scales", (0.5, 1, 2)),
        ("--config.work.sizes=()", "sizes", ()),
        ("--config.work.scales=0.5,1,2", "scales", (0.5, 1, 2)),
        ("--config.work.scales=2", "scales", (2.0,)),
        ("--config.work.label=a,b c", "label", "a,b c"),
        ("--config.work.label=7", "label", "7"),
        ("--config.work.label=x=y", "label", "x=y"),
        ("--config.work.flip=FALSE", "flip", False),
    ],
)
def test_every_value_can_be_replaced(recipe: Path, override: str, key: str, value: object):
    before = _values(recipe)
    after = _values(recipe, override)
    assert after[key] == value
    assert {k: v for k, v in after.items() if k != key} == {
        k: v for k, v in before.items() if k != key
    }


def test_the_last_of_several_values_counts(recipe: Path):
    values = ("(0.5,1)", "(0.25,)", "(2.0,3.0)")
    after = _values(recipe, *(f"--config.work.scales={value}" for value in values))
    assert after["scales"] == (2.0, 3.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:\n", "SyntaxError"),
        ("import nothing_of_this_name\n", "line 1: ModuleNotFoundError"),
        ("def get_config():\n    return 3\n", "to return a ConfigDict, found int"),
        ("x = 1\n", "get_config"),
    ],
)
def test_a_broken_config_file_names_file_and_line(tmp_path: Path, text: str, message: str):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        load_config(str(path))
    assert "mine.py" in str(error.value) and "\n" not in str(error.value)


def test_a_mistake_inside_a_module_of_ones_own_is_shown_as_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "mine.py").write_text(
        "from wsss_jax.stages.base import Stage\n"
        "def get_config():\n"
        "    return Stage.defaults('broken_stage:Broken')\n"
    )
    (tmp_path / "broken_stage.py").write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        load_config(str(tmp_path / "mine.py"))


def test_a_config_elsewhere_uses_its_neighbors_and_the_shipped_recipes(tmp_path: Path):
    (tmp_path / "mine.py").write_text(
        "from configs import neighbor, cam_shapes\n"
        "def get_config():\n"
        "    c = cam_shapes.get_config()\n"
        "    c.train.epochs = neighbor.EPOCHS\n"
        "    return c\n"
    )
    (tmp_path / "neighbor.py").write_text("EPOCHS = 77\n")
    assert cast(Any, load_config(str(tmp_path / "mine.py"))).train.epochs == 77


def test_sections_are_completed_and_every_setting_can_be_replaced(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n"
        "    c = ConfigDict(dict(seed=0, stages=('chosen',)))\n"
        "    c.data = dict(builder='shapes', size=64)\n"
        "    c.chosen = dict(type='threshold', needs=dict(cams='cam'), split='train')\n"
        "    return c\n"
    )
    config: Any = load_config(str(path))
    assert config.chosen.images == 500 and config.data.train_images > 0 and config.data.size == 64
    changed: Any = read_recipe(str(path), ["--config.chosen.images=7", "--config.data.seed=3"])
    assert (changed.chosen.images, changed.data.seed) == (7, 3)
    with pytest.raises(UserError, match=r"chosen\.imagse is not a setting .* did you mean images"):
        path.write_text(path.read_text().replace("split='train'", "split='train', imagse=3"))
        load_config(str(path))


def test_a_recipe_names_modules_that_lie_beside_it_or_in_the_working_directory(tmp_path: Path):
    """Here the recipe's folder is not the working directory, and neither is on the path."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    write_recipe(folder)
    here = tmp_path / "here"
    here.mkdir()
    (here / "sizes_of_mine.py").write_text("SIZES = (3, 4)\n")
    stage = folder / "fake_main" / "stage.py"
    stage.write_text(
        "from sizes_of_mine import SIZES\n"
        "from wsss_jax.host.workers import process_pool\n"
        "def double(value):\n"
        "    return 2 * value\n"
        + stage.read_text().replace(
            "    def run(self, ctx, inputs):\n",
            "    def run(self, ctx, inputs):\n"
            "        with process_pool(1) as pool:\n"
            "            ctx.log(f'sizes {SIZES}, doubled {list(pool.map(double, SIZES))}')\n",
        )
    )
    command = [sys.executable, "-m", "wsss_jax.main", "--config=../recipes/recipe.py"]
    environment = dict(os.environ, PYTHONPATH=str(Path(__file__).resolve().parents[2]))
    done = subprocess.run(
        [*command, "--workdir=run"], cwd=here, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "sizes (3, 4), doubled [6, 8]" in done.stdout


def test_recipes_are_found_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    assert find_recipe("seam_voc").name == "seam_voc.py"
    for name in ("common", "published"):
        with pytest.raises(UserError, match=f"no config file {name}"):
            find_recipe(name)


def test_a_file_that_hides_a_shipped_one_is_named(tmp_path: Path):
    (tmp_path / "common.py").write_text("")
    (tmp_path / "mine.py").write_text(
        "from configs import seam_voc_light\n\n\ndef get_config():\n"
        "    return seam_voc_light.get_config()\n"
    )
    with pytest.raises(UserError, match=f"{tmp_path / 'common.py'} hides the shipped file"):
        load_config(str(tmp_path / "mine.py"))
