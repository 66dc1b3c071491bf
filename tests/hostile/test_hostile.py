"""No file makes the readers do anything but read it or refuse it in one line."""

import io
import json
import subprocess
import sys
import zipfile
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.hostile.kinds import KINDS
from tests.hostile.mutations import mutated

FEW = """
import json, sys
from tests.hostile.kinds import KINDS
from tests.hostile.processes import run

found = {}
for name, kind in KINDS.items():
    if kind.share >= 0.2:
        one = run(kind, 0, 30 if kind.reads_only else 3)
        found[name] = [dict(one.outcomes), one.wrong]
print(json.dumps(found))
"""


def result(*command: str) -> Any:
    """What a program in a process of its own prints as JSON; forks want a process without JAX."""
    started = subprocess.run([sys.executable, *command], check=True, stdout=subprocess.PIPE)
    return json.loads(started.stdout)


def test_a_few_files_of_each_kind():
    found = result("-W", "ignore", "-c", FEW)
    assert [wrong for _, wrong in found.values() if wrong] == []
    assert len(found) > 40
    for name, (outcomes, _) in found.items():
        weights = KINDS[name].reads_only
        assert sum(outcomes.values()) == (30 if weights else 3)
        assert outcomes.get("refused", 0) > (10 if weights else -1)
    for outcome in ("read", "refused"):
        assert sum(outcomes.get(outcome, 0) for outcomes, _ in found.values()) > 30
        weights = [o for name, (o, _) in found.items() if KINDS[name].reads_only]
        assert sum(outcomes.get(outcome, 0) for outcomes in weights) > 10


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_files_of_each_kind(kind: str):
    count = 20_000 if KINDS[kind].reads_only else round(2000 * KINDS[kind].share)
    command = [sys.executable, "-m", "tests.hostile", f"--count={count}", "--kinds", kind]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stdout


def test_files_are_the_same_for_the_same_number():
    for kind in (one for one in KINDS.values() if one.share >= 0.2):
        numbers = range(20 if kind.reads_only else 6)
        made = [kind.make(number) for number in numbers]
        assert made == [kind.make(number) for number in numbers]
        assert len({str(one.files) for one in made}) > len(numbers) * 0.6, kind.name


def test_changes_inside_archives_and_pictures_fit_their_checksums():
    rng = np.random.default_rng(0)
    ((_, png),) = KINDS["masks"].seeds[0].items()
    ((_, npz),) = KINDS["CAMs"].seeds[0].items()
    ((_, tar),) = KINDS["archives to submit"].seeds[0].items()
    whole = 0
    for data in (png, npz, tar):
        changed = [one for _ in range(40) if (one := mutated(rng, data, [data])).repaired]
        assert len(changed) > 5
        assert len({one.what for one in changed}) > 3
        for one in changed:
            if data is npz:
                with zipfile.ZipFile(io.BytesIO(one.data)) as archive:
                    assert archive.testzip() is None
            elif data is png and one.what == "changed pixels":
                whole += Image.open(io.BytesIO(one.data)).size == (37, 24)
    assert whole > 0


BAD = """
import json, os, sys, time
from pathlib import Path
import numpy as np
from tests.hostile import processes
from tests.hostile.kind import Kind, Made, single
from wsss_jax.errors import UserError

processes._SLACK = 2**24

def runs(path):
    os.system("true")
    raise UserError("refused")

def imports(path):
    import wave
    raise UserError("refused")

def writes(path):
    open(str(path) + ".more", "w").close()
    raise UserError("refused")

def writes_elsewhere(path):
    open(path.parents[2] / "hostile.txt", "w").close()

def talks(path):
    raise Told("one line\\nand another")

class Told(UserError):
    def __init__(self, text):
        Exception.__init__(self, text)

def fails(path):
    raise KeyError("a")

def spins(path):
    while True:
        pass

def waits_in_c(path):
    keep = os.urandom(2**26)
    time.sleep(1000)

def asks(path):
    np.empty(2**26, np.uint8)
    raise UserError("refused")

def has(path):
    raise UserError("refused after " + str(len(os.urandom(2**26))))

def aborts(path):
    os.abort()

def other(path):
    return "other content"

class Bad(Kind):
    def make(self, number):
        return Made({"a": b"bad"}, "a", "bad", False)

found = {}
bad = runs, imports, writes, writes_elsewhere, talks, fails, spins, waits_in_c, asks
for one in (*bad, has, aborts, other):
    def read(path, one=one):
        return "good" if path.read_bytes() == b"good" else one(path)
    quiet = one in (imports, writes, asks)
    kind = Bad(
        one.__name__, lambda: single("a", b"good"), read, times=2, spare=2**24,
        reads_only=quiet, sealed=one is other, seconds=1 if one is spins else 60,
    )
    made = processes.run(kind, 0, 2)
    found[one.__name__] = [made.outcomes["wrong"], made.wrong]
print(json.dumps(found))
"""


def test_what_is_wrong_is_noticed():
    found = result("-W", "ignore", "-c", BAD)
    counts = {name: count for name, (count, _) in found.items()}
    assert counts == dict.fromkeys(counts, 2) | {"imports": 1}  # a module is imported once
    said = {name: lines[0] for name, (_, lines) in found.items()}
    assert "did os.system" in said["runs"] and "did import" in said["imports"]
    assert "did open" in said["writes"] and "did open" in said["writes_elsewhere"]
    assert "characters or several lines" in said["talks"]
    assert "an exception: KeyError" in said["fails"]
    assert said["spins"].endswith("took 1 s")
    assert "asked for 67," in said["asks"]
    assert said["aborts"].endswith("the process ended with -6")
    assert said["other"].endswith("took what was changed")
    if sys.platform == "linux":
        assert "of memory, and was ended" in said["waits_in_c"]
        # Whichever of the two processes notices it first.
        assert "asked for 0 and had " in said["has"] or "of memory, and was" in said["has"]


def test_the_table_of_the_program():
    command = [sys.executable, "-m", "tests.hostile", "--count=9", "--kinds", "names of classes"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    head, line, all_ = done.stdout.splitlines()
    assert all_.startswith("in all") and all_.split()[2] == "9"
    assert head.split()[:5] == ["kind", "files", "read", "refused", "wrong"]
    assert line.split()[:4] == ["names", "of", "classes", "9"] and line.split()[6] == "0"
