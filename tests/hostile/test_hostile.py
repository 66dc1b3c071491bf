"""No checkpoint makes the readers do anything but read, whatever is in it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.weights import attacks, hostile

FEW = """
import json, sys
from pathlib import Path
from tests.weights import attacks, hostile

found = {kind: hostile.read_all(kind, 0, 30, Path(sys.argv[1])) for kind in attacks.KINDS}
print(json.dumps(found))
"""


def run(program: str, argument: Path) -> Any:
    """What a program in a process of its own prints as JSON."""
    command = [sys.executable, "-c", program, str(argument)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def test_a_few_files_of_each_kind(tmp_path: Path):
    found = run(FEW, tmp_path)
    assert list(found) == list(attacks.KINDS)
    for result in found.values():
        assert result["violations"] == []
        assert sum(result["outcomes"].values()) == 30
        assert result["outcomes"]["refused"] > 10
    assert sum(result["outcomes"].get("read", 0) for result in found.values()) > 10


def test_a_crash_names_its_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    crash = "import os, sys; open(sys.argv[1] + '/progress', 'w').write('7 a bomb'); os.abort()"
    monkeypatch.setattr(
        hostile, "child", lambda folder, *_: [sys.executable, "-c", crash, str(folder)]
    )
    assert hostile.main(["--kinds=npz", "--count=10"]) == 1
    assert "npz: ended with -6 at file 7 a bomb" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("kind", attacks.KINDS)
def test_twenty_thousand_files_of_each_kind(kind: str, capsys: pytest.CaptureFixture[str]):
    assert hostile.main([f"--kinds={kind}"]) == 0, capsys.readouterr().out


def test_files_are_the_same_for_the_same_number():
    for kind in attacks.KINDS:
        made = [attacks.make(kind, number) for number in range(20)]
        assert made == [attacks.make(kind, number) for number in range(20)]
        assert len({data for data, _ in made}) > 15


BAD = """
import json, os, signal, sys
from pathlib import Path
import numpy as np
from tests.weights import hostile
from wsss_jax.errors import UserError

def runs(path):
    os.system("true")
    raise UserError("refused")

def imports(path):
    import wave
    raise UserError("refused")

def writes(path):
    open(str(path) + ".more", "w").close()
    raise UserError("refused")

def talks(path):
    raise UserError("one line\\nand another")

def fails(path):
    raise KeyError("a")

def hangs(path):
    while True:
        pass

def asks(path):
    np.empty(2**26, np.uint8)
    raise UserError("refused")

def has(path):
    raise UserError("refused after " + str(len(os.urandom(2**26))))

def slow(*_):
    raise hostile.Slow

signal.signal(signal.SIGPROF, slow)
listener, found = hostile.Listener(), {}
for bad in (runs, imports, writes, talks, fails, hangs, asks, has):
    hostile.read_checkpoint = bad
    hostile.SECONDS = 1 if bad is hangs else 60
    outcome, _, asked, had = hostile.measured(Path(sys.argv[1]), listener)
    found[bad.__name__] = [outcome, asked, had, len(listener.heard)]
    listener.heard.clear()
print(json.dumps(found))
"""


def test_violations_are_noticed(tmp_path: Path):
    found = run(BAD, tmp_path / "file")
    assert all(found[name][3] for name in ("runs", "imports", "writes"))
    assert not any(found[name][3] for name in ("talks", "fails", "hangs", "asks", "has"))
    assert found["talks"][0] == "a message of more than one line"
    assert found["fails"][0] == "an exception: KeyError('a')"
    assert found["hangs"][0] == "took 1 s"
    assert found["asks"][:2] == ["refused", pytest.approx(2**26, rel=0.1)]
    if sys.platform == "linux":
        assert found["has"][2] > 2**25
