"""A pipeline of fake stages that add numbers and count their runs."""

import sys
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

# Copies its inputs' numbers and adds its own; counts its runs outside of the stage folder.
_ADD = """
import dataclasses
from collections.abc import Mapping
from wsss_jax.errors import Interrupted
from wsss_jax.stages.base import Stage

@dataclasses.dataclass(frozen=True, kw_only=True)
class Add(Stage):
    outputs = ("value", "maps/")
    no_effect = frozenset({"log_every"})

    split: str = ""
    add: float = 1.0
    sizes: tuple[int, ...] = ()
    more: Mapping[str, float] = dataclasses.field(default_factory=dict)
    init_weights: str = ""
    stop: str = ""
    log_every: int = 10

    def files(self):
        return {"init_weights": self.init_weights}

    def run(self, ctx, inputs):
        with open(ctx.workdir.parent / "log", "a") as log:
            log.write(ctx.stage + "\\n")
        parts = [float((folder / "value").read_text()) for folder in inputs.values()]
        half = ctx.stage_dir / "half"
        if not half.exists():
            half.write_text("1")
            if self.stop == "crash":
                raise RuntimeError("power cut")
            if self.stop == "asked":
                raise Interrupted("stopped after step 3")
        (ctx.stage_dir / "value").write_text(str(sum(parts) + self.add))
        return {"miou": 0.25, "value": sum(parts) + self.add}
"""


def make_workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in; the stage `fake_stages.add` can be imported while the test runs."""
    (tmp_path / "fake_stages").mkdir()
    (tmp_path / "fake_stages" / "__init__.py").write_text("")
    (tmp_path / "fake_stages" / "add.py").write_text(_ADD)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [m for m in sys.modules if m.startswith("fake_stages")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path / "run"


def adding_config(**sections: dict[str, Any]) -> ConfigDict:
    """Stages a -> b -> c and a -> d; `sections` change theirs."""
    c = ConfigDict({"seed": 0, "data": {"builder": "tests.toys.no_data", "root": "/somewhere"}})
    needs = {"a": {}, "b": {"x": "a"}, "c": {"x": "b"}, "d": {"x": "a"}}
    for name, need in needs.items():
        section = {"type": "fake_stages.add", "needs": need, "add": 1.0, "log_every": 10}
        c[name] = ConfigDict({**section, **sections.get(name, {})})
    c.stages = ("a", "b", "c", "d")
    return c


def stages_run(workdir: Path) -> list[str]:
    """The stages that ran since the last call."""
    log = workdir.parent / "log"
    lines = log.read_text().split() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines
