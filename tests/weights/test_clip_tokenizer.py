"""CLIP's tokens: of a small vocabulary in every form, and beside OpenCLIP's own tokenizer."""

import importlib.util
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.toys import clip_vocabulary
from tests.toys.clip_vocabulary import WORDS, write_archive, write_files
from wsss_jax.errors import UserError
from wsss_jax.weights import clip_tokenizer
from wsss_jax.weights.clip_tokenizer import ClipTokenizer

DIFFICULT = [
    "a photo of a cat.",
    "A Photo of a POTTED  plant,\tit's 2 o'clock!",
    "the dog's we're they've I'm he'll she'd can't",
    "tv/monitor (dining-table) #1 50%",
    "x1y22z333 1234567890",
    "caf\u00e9 na\u00efve \u00dcber stra\u00dfe cafe\u0301",
    "\u201csmart\u201d quotes \u2019s and \u2026 dashes \u2014 \u2013",
    "caf\u00c3\u00a9 mojibake \u00e2\u20ac\u2122s",
    "&lt;b&gt; &amp;amp; &quot;html&quot;",
    "\ufb01ne \uff46\uff55\uff4c\uff4c width",
    "\u732b\u3068\u72ac \u043a\u043e\u0448\u043a\u0430 \u0e41\u0e21\u0e27 \u0642\u0637\u0629",
    "emoji \U0001f431\U0001f436 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",
    "  leading, trailing \n\n and\u00a0no-break\u3000spaces  ",
    "\u0130stanbul \u03a3\u03a3 \u01c5 \u212a",
    "under_score snake_case __init__ a.b.c ...!!??",
    "\u00bd \u00b2 \u2167 \u0664\u0665",
    "",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "\u200bzero\u200bwidth\u200b \u0007bell",
]
"""Case, contractions, digits, accents, broken encodings, HTML, scripts, emoji, spaces."""

TORCH = """
import json, sys
from pathlib import Path
import open_clip
from open_clip.tokenizer import SimpleTokenizer, default_bpe
tokens = SimpleTokenizer()(json.load(sys.stdin)).tolist()
print(json.dumps([str(Path(default_bpe()).parent), tokens]))
"""


@pytest.fixture(autouse=True)
def no_open_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCLIP counts as not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        clip_tokenizer.importlib.util,
        "find_spec",
        lambda name: None if name == "open_clip" else find(name),
    )


def words(tokens: Any) -> list[str]:
    return [WORDS[token] for token in tokens if token]


@pytest.mark.parametrize("write", [write_archive, write_files])
def test_tokens_of_a_small_vocabulary(tmp_path: Path, write: Any):
    write(tmp_path)
    tokenizer = ClipTokenizer(tmp_path)
    found = tokenizer(["A photo of\u00a0a  CAT.", "it's 12", "\u00e9 &amp; &amp;lt;"], 16)
    start, end = WORDS[-2:]
    assert found.shape == (3, 16) and found.dtype == np.int32
    assert words(found[0]) == [
        start,
        "a</w>",
        "phot",
        "o</w>",
        "of</w>",
        "a</w>",
        "cat</w>",
        ".</w>",
        end,
    ]
    assert words(found[1]) == [start, "i", "t</w>", "'", "s</w>", "1</w>", "2</w>", end]
    assert words(found[2]) == [start, "\u00c3", "\u00a9</w>", "&</w>", "<</w>", end]
    assert (found[0, 9:] == 0).all()
    np.testing.assert_array_equal(
        tokenizer(["cat"]), np.pad(tokenizer(["cat"], 3), ((0, 0), (0, 74)))
    )


def test_hugging_faces_one_file_is_read(tmp_path: Path):
    write_archive(tmp_path)
    expected = ClipTokenizer(tmp_path)(["a photo of a cat."])
    folder = tmp_path / "hf"
    folder.mkdir()
    ClipTokenizer(tmp_path)._tokenizer.save(str(folder / "tokenizer.json"))
    np.testing.assert_array_equal(ClipTokenizer(folder)(["a photo of a cat."]), expected)


def test_an_installed_open_clip_has_the_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its folder is read, its modules are not."""
    package = tmp_path / "site" / "open_clip"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    write_archive(package)
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(package.parent))
    assert ClipTokenizer(tmp_path).end == len(clip_vocabulary.WORDS) - 1


def test_what_is_missing_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match="pip install --no-deps open_clip_torch") as error:
        ClipTokenizer(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
    (tmp_path / "vocab.json").write_text("{}")
    os.mkfifo(tmp_path / "merges.txt")  # which is not waited for
    with pytest.raises(UserError, match="pip install --no-deps open_clip_torch"):
        ClipTokenizer(tmp_path)
    (tmp_path / "merges.txt").unlink()
    (tmp_path / "vocab.json").unlink()
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="found something else"):
        ClipTokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    write_archive(tmp_path)
    with pytest.raises(UserError, match=r"at most 4 tokens, found 7 in 'cat cat cat cat cat'"):
        ClipTokenizer(tmp_path)(["cat cat cat cat cat"], 4)

    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(clip_tokenizer.importlib, "import_module", absent)
    with pytest.raises(UserError, match=r"library ftfy.*pip install ftfy"):
        ClipTokenizer(tmp_path)


def test_tokens_are_those_of_open_clip():
    python = os.environ.get("WSSS_TORCH_PYTHON")
    if not python:
        pytest.skip("set WSSS_TORCH_PYTHON to a Python with open_clip")
    done = subprocess.run(
        [python, "-c", TORCH],
        input=json.dumps(DIFFICULT),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    folder, expected = json.loads(done.stdout.splitlines()[-1])
    found = ClipTokenizer(Path(folder))(DIFFICULT)
    for text, ours, theirs in zip(DIFFICULT, found.tolist(), expected, strict=True):
        assert ours == theirs, text
