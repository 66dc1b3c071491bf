"""The example of docs/new_method.md does what the page says, in the words of the page."""

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.methods import test_methods
from wsss_jax import main, methods
from wsss_jax.training.metrics import read_metrics

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "new_method.md"
BLOCKS: list[str] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
FILES = [block for block in BLOCKS if block.startswith('"""')]
EXCERPTS = [block for block in BLOCKS if not block.startswith('"""')]
ERRORS = re.findall(r"^\| `(--config\S+)` \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
CONTRACT = test_methods.CHECKS


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the page's recipe; its method is one of the package while the test runs."""
    method, recipe = FILES
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "mixture.py").write_text(method)
    (tmp_path / "mixture_shapes.py").write_text(recipe)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path / "methods")])
    importlib.invalidate_caches()
    yield tmp_path
    sys.modules.pop("wsss_jax.methods.mixture", None)
    methods.__dict__.pop("mixture", None)


def test_the_example_passes_the_checks_of_every_method(page: Path):
    assert len(CONTRACT) == 7  # as the page says
    for check in CONTRACT:
        check("mixture")


def test_the_examples_recipe_trains_it(page: Path, capsys: pytest.CaptureFixture[str]):
    command = ["main", f"--config={page}/mixture_shapes.py", f"--workdir={page}/run"]
    command += ["--only=train", "--config.train.steps=2", "--config.train.log_every=1"]
    command += ["--config.data.train_images=16", "--config.train.method.mix_weight=0.3"]
    assert main.main([*command, f"--config.data.data_dir={page}/data"]) == 0, capsys.readouterr()
    rows = read_metrics(page / "run" / "train")
    assert {"loss/cls", "loss/cls_blend", "loss/mix"} <= set(rows[-1])
    for row in rows:
        half = (row["loss/cls"] + row["loss/cls_blend"]) / 2
        assert np.isclose(row["loss"], half + 0.3 * row["loss/mix"], rtol=1e-4)
    config = json.loads((page / "run" / "train" / "config.json").read_text())
    assert config["method"]["name"] == "mixture"


@pytest.mark.parametrize("excerpt", EXCERPTS, ids=lambda block: block.split("\n")[0].strip())
def test_excerpts_are_those_of_the_tested_example(excerpt: str):
    """Word for word: what the page shows of the example is run by the example's tests."""
    files = [*REPOSITORY.glob("examples/*.py"), *REPOSITORY.glob("tests/examples/*.py")]
    assert sum(excerpt in path.read_text() for path in files) == 1


def test_the_page_shows_files_excerpts_and_errors():
    assert (len(FILES), len(EXCERPTS), len(ERRORS)) == (2, 13, 7)


@pytest.mark.parametrize(("given", "answer"), ERRORS)
def test_mistakes_are_answered_as_the_page_says(
    given: str, answer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    command = ["main", f"--config={REPOSITORY}/examples/token_contrast_shapes.py", given]
    command += [f"--workdir={tmp_path}/run", f"--config.data.data_dir={tmp_path}/data"]
    assert main.main([*command, "--config.data.size=32"]) == 2
    assert answer in capsys.readouterr().err
    assert not (tmp_path / "run" / "train").exists()
