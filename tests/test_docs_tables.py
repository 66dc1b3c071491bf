"""The page of settings is what the classes say, and its examples work."""

import dataclasses
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from wsss_jax.pipeline import run
from wsss_jax.pipeline.config import load_config
from wsss_jax.settings import Settings, kind_names, room_of, settings_of

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def tables() -> Any:
    spec = importlib.util.spec_from_file_location("make_tables", DOCS / "make_tables.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current(tables: Any):
    assert (DOCS / "settings.md").read_text() == tables.page(), "run make docs-tables"


def test_the_table_of_weights_is_current(tables: Any):
    text = (DOCS / "weights.md").read_text()
    assert text == tables.weights_page(), "run make docs-tables"
    assert (
        text.count("| `efficientnet_lite0` | EfficientNet-Lite0 | ImageNet-1k | Apache-2.0 |") == 1
    )


def test_every_setting_of_every_kind_is_on_the_page(tables: Any):
    text = (DOCS / "settings.md").read_text()
    bases = [base for bases in tables.GROUPS.values() for base in bases]
    assert len(bases) >= 8
    for base in bases:
        names = kind_names(base) if room_of(base) else (base.__name__,)
        for name, cls in zip(names, tables.kinds(base), strict=True):
            (part,) = re.findall(rf"^### {name}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
            rows = re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)
            assert rows == list(settings_of(cls)), name


def test_links_lead_to_headings(tables: Any):
    text = (DOCS / "settings.md").read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    recipes = (DOCS / "recipes.md").read_text()
    links = re.findall(r"\]\(#([\w-]+)\)", text) + re.findall(r"settings\.md#([\w-]+)\)", recipes)
    assert len(set(links)) > 10 and set(links) <= anchors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Undescribed(Settings):
    """A class.

    Attributes:
      told: about this one something is said.
    """

    told: int = 1
    untold: int = 2


def test_a_setting_without_description_is_refused(tables: Any):
    with pytest.raises(ValueError, match=r"Undescribed does not describe untold"):
        tables._table(Undescribed)


def test_the_recipe_of_the_page_works(tmp_path: Path):
    text = (DOCS / "recipes.md").read_text()
    block = re.search(r"```python\n(from ml_collections.*?)```", text, re.DOTALL)
    assert block is not None
    path = tmp_path / "mine.py"
    path.write_text(block[1])
    nodes = run.checked(load_config(str(path)), ())
    assert [node.name for node in nodes] == ["train", "cam_train", "eval_cam_train"]
