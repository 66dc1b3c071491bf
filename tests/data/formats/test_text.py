"""Text files in the encodings of spreadsheets and editors."""

import os
from pathlib import Path

import pytest

from wsss_jax.data.formats.text import read_text
from wsss_jax.errors import UserError


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]
)
def test_encodings(tmp_path: Path, encoding: str, capsys: pytest.CaptureFixture[str]):
    text = "crack\r\nmousse épaisse\r\nSüd\r\n"
    marks = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}
    path = tmp_path / "names.txt"
    path.write_bytes(marks.get(encoding, b"") + text.encode(encoding))
    assert read_text(path, "names") == text
    noted = capsys.readouterr().err
    assert ("not UTF-8" in noted) == (encoding == "cp1252") and str(path) in (noted or str(path))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("裂缝\n".encode("gb18030"), "found another encoding: save the text as UTF-8"),
        ("ひび\n".encode("shift-jis"), "found another encoding"),
        (b"\xff\xfe\x80", "found no text"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "found no text"),
        (b"a\0b", "found no text"),
    ],
)
def test_what_may_be_misread_is_refused(tmp_path: Path, content: bytes, found: str):
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(UserError, match=found) as caught:
        read_text(tmp_path / "names.txt", "names")
    assert "\n" not in str(caught.value)


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "list.txt")
    with pytest.raises(UserError, match="found a pipe, device or folder"):
        read_text(tmp_path / "list.txt", "names")
    with pytest.raises(UserError, match="found none"):
        read_text(tmp_path / "nowhere.txt", "names")
