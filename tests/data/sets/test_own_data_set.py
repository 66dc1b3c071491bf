"""A data set in a module outside the package, used by a recipe and the ordinary command."""

import json
import sys
from pathlib import Path

import pytest

from wsss_jax import main
from wsss_jax.data.sets.base import DataSettings
from wsss_jax.errors import UserError
from wsss_jax.settings import name_of, to_config

MODULE = '''
import dataclasses
import hashlib
from typing import ClassVar

import cv2
import numpy as np

from wsss_jax.data.prepared import RecordBuilder
from wsss_jax.data.sets.base import DataSettings
from wsss_jax.data.source import Record
from wsss_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stripes(DataSettings):
    """Images of vertical and horizontal stripes.

    Attributes:
      colors: a file with one number per image, the brightness of its stripes.
      period: width of a stripe, pixels.
    """

    location: ClassVar[frozenset[str]] = DataSettings.location | {"colors"}

    colors: str
    period: int = 4

    def builder(self, split):
        if split != "train":
            raise UserError(f"expected the split train, found {split}")
        with open(self.colors) as file:
            content = file.read()
        return Builder(self, content)


class Builder(RecordBuilder, skip_registration=True):
    name = "stripes"

    def __init__(self, data, content):
        self._data, self._levels = data, [int(line) for line in content.split()]
        super().__init__(
            folder=data.prepared_root,
            split="train",
            fingerprint=hashlib.sha256(f"{data.period} {content}".encode()).hexdigest(),
            ids=[f"image{i}" for i in range(len(self._levels))],
            classes=("vertical", "horizontal"),
            masks=False,
        )

    def records(self, positions):
        for i in positions:
            image = np.zeros((40, 48, 3), np.uint8)
            bright = np.arange(48) // self._data.period % 2 == 1
            image[:, bright] = self._levels[i]
            image = image if i % 2 == 0 else np.ascontiguousarray(image.transpose(1, 0, 2))
            yield Record(
                id=self.ids[i],
                image=cv2.imencode(".png", image)[1].tobytes(),
                size=image.shape[:2],
                label=np.array([i % 2 == 0, i % 2 == 1], np.float32),
                segmentation=None,
            )
'''

RECIPE = """
from configs import cam_shapes
from wsss_jax.data.sets.base import DataSettings

def get_config():
    c = cam_shapes.get_config()
    c.data = DataSettings.defaults("own_sets.stripes", colors="")
    c.train.update(batch_size=2, steps=2)
    c.train.augment.update(crop=32, long_side=(32, 40))
    return c
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_sets").mkdir()
    (tmp_path / "own_sets" / "__init__.py").write_text("")
    (tmp_path / "own_sets" / "stripes.py").write_text(MODULE)
    (tmp_path / "recipe.py").write_text(RECIPE)
    (tmp_path / "colors.txt").write_text("100 150 200 250")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [m for m in sys.modules if m.split(".")[0] == "own_sets"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def run(folder: Path, *arguments: str) -> int:
    command = [f"--config={folder / 'recipe.py'}", f"--workdir={folder / 'run'}", "--only=train"]
    command += [f"--config.data.data_dir={folder / 'prepared'}"]
    return main.main(["main", *command, *arguments])


def test_a_recipe_trains_on_a_data_set_of_its_own(folder: Path, capsys: pytest.CaptureFixture[str]):
    colors = f"--config.data.colors={folder / 'colors.txt'}"
    assert run(folder, colors, "--config.data.period=3", "--dry_run", "--details") == 0
    shown = capsys.readouterr().out
    assert "train: 4 images, to be prepared on the first run" in shown
    assert "2 classes" in shown and not (folder / "prepared").exists()

    assert run(folder, colors, "--config.data.period=3") == 0
    done = json.loads((folder / "run" / "train" / "metrics.json").read_text())
    assert done["images"] == 4 and done["classes"] == ["vertical", "horizontal"]
    parts = json.loads((folder / "run" / "train" / "_START.json").read_text())["parts"]
    assert parts["data"] == {"builder": "own_sets.stripes", "period": 3}
    assert parts["images"]["train"]
    capsys.readouterr()

    # Where the file lies does not matter, what is in it does.
    moved = (folder / "colors.txt").rename(folder / "moved.txt")
    assert run(folder, f"--config.data.colors={moved}", "--config.data.period=3") == 0
    assert "finished" in capsys.readouterr().out
    other = folder / "other.txt"
    other.write_text("100 150 200 251")
    assert run(folder, f"--config.data.colors={other}", "--config.data.period=3") == 2
    assert "the images, labels, masks or classes of split train changed" in capsys.readouterr().err


def test_its_settings_are_read_strictly(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run(folder, "--config.data.periode=3", "--dry_run") == 2
    assert "did you mean data.period" in capsys.readouterr().err
    wrong = RECIPE.replace("    return c", "    c.data.perod = 3\n    return c")
    (folder / "recipe.py").write_text(wrong)
    for dry in ([], ["--dry_run"]):
        assert run(folder, *dry) == 2
        assert "data.perod is not a setting of Stripes; did you mean" in capsys.readouterr().err
        assert not (folder / "run" / "train").exists()
    with pytest.raises(UserError, match=r"data\.perod is not a setting of Stripes; did you mean"):
        DataSettings.from_config({"builder": "own_sets.stripes", "colors": "", "perod": 3}, "data")
    with pytest.raises(UserError, match=r"expected data\.colors \(text\), found none: set it"):
        DataSettings.from_config({"builder": "own_sets.stripes"}, "data")


def test_a_mistake_in_its_module_is_shown_as_itself(folder: Path):
    (folder / "own_sets" / "broken.py").write_text("import not_there_at_all")
    with pytest.raises(ModuleNotFoundError, match="not_there_at_all"):
        DataSettings.from_config({"builder": "own_sets.broken"}, "data")


def test_its_settings_make_the_section_that_they_were_read_from(folder: Path):
    section = DataSettings.defaults("own_sets.stripes", colors="here", period=5)
    data = DataSettings.from_config(section, "data")
    assert name_of(type(data)) == "own_sets.stripes"
    assert to_config(data).to_dict() == section.to_dict()
