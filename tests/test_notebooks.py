"""Notebooks run from the first cell to the last, and are pages of the site."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "docs/notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

_CHECKS = """
assert results["seeds"] > results["nothing but background"] + 0.05, results
assert results["seeds after the CRF"] > results["nothing but background"] + 0.05, results
assert len(plt.get_fignums()) == 2
"""


def code_of(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_pages(path: Path):
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["nbformat"] == 4 and len({c["id"] for c in content["cells"]}) > 5
    # Results are not stored, so that they cannot be old.
    assert not any(cell.get("outputs") for cell in content["cells"])
    assert f"<!-- cells of {path.name} -->" in path.with_suffix(".md").read_text()
    compile(code_of(path), path.name, "exec")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: Path, tmp_path: Path):
    program = tmp_path / f"{path.stem}.py"
    program.write_text(code_of(path) + _CHECKS)
    environment = {**os.environ, "MPLBACKEND": "agg", "TMPDIR": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join([str(FOLDER.parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "% mIoU" in done.stdout
