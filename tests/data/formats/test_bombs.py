"""Files that declare more than they have are refused before memory is taken."""

import io
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest
from PIL import Image

from wsss_jax.data.formats import npz, table_rows
from wsss_jax.data.formats.cam_files import read_cams, write_cams
from wsss_jax.data.formats.crf_files import read_crf, write_crf
from wsss_jax.data.formats.voc_submission import check_archive, folder_in_archive, mask_fault
from wsss_jax.data.formats.walk_files import Walk, read_walk, write_walk
from wsss_jax.data.labels import read_label_file
from wsss_jax.errors import UserError
from wsss_jax.preparing.archives import Entry

KEYS = np.zeros(1, np.int32)
MAPS = np.full((1, 4, 4), 0.5, np.float32)
CLASSES = ("cat", "dog")


def header(shape: tuple[int, ...], dtype: str = "<f2") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


class Kind:
    """A kind of archive: how it is written, which of its arrays is large, and how it is read."""

    def __init__(self, write: Callable[[Path], object], large: str, read: Callable[[Path], object]):
        self.write, self.large, self.read = write, large, read


WALK = Walk(KEYS, np.zeros((2, 2, 2), np.float32), (8, 8), (8, 8), 4)
LABELS = {"ids": np.array(["a"]), "labels": np.array([[1, 0]])}
KINDS = {
    "CAMs": Kind(lambda path: write_cams(path, KEYS, MAPS), "cam", read_cams),
    "CRF": Kind(
        lambda path: write_crf(path, KEYS, {4.0: MAPS.repeat(2, 0)}),
        "q_4",
        lambda path: read_crf(path, 4),
    ),
    "walk": Kind(lambda path: write_walk(path, WALK), "scores", read_walk),
    "labels": Kind(
        lambda path: np.savez(path, **LABELS),  # pyright: ignore[reportArgumentType]
        "labels",
        lambda path: read_label_file(path, CLASSES),
    ),
}


def rewritten(path: Path, name: str, content: bytes, zeros: int) -> None:
    """Replaces an array by `content` and many zeros, which are compressed to nearly nothing."""
    with zipfile.ZipFile(path) as archive:
        parts = {one: archive.read(one) for one in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for one, data in parts.items():
            with archive.open(one, "w", force_zip64=True) as file:
                file.write(content if one == f"{name}.npy" else data)
                for _ in range(zeros >> 20 if one == f"{name}.npy" else 0):
                    file.write(bytes(1 << 20))


def taken_by(read: Callable[[], object]) -> tuple[str, int]:
    """The message of a refusal, and the most memory that was taken on the way."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as caught:
            read()
        return str(caught.value), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_an_array_that_unpacks_to_more_than_its_file_justifies(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(npz, "SPARE", 8 << 20)  # 16 MiB of zeros are enough then
    how, path = KINDS[kind], tmp_path / "file.npz"
    how.write(path)
    how.read(path)
    whole = header((1, 8, 1 << 20))
    rewritten(path, how.large, whole, 16 << 20)
    assert path.stat().st_size < 100_000
    said, peak = taken_by(lambda: how.read(path))
    assert "which the file does not justify" in said and "\n" not in said
    assert peak < 4 << 20


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(10**13,), (1, 10**6, 10**7), (0, 10**30), (-1, -4, -4), ()])
def test_a_header_that_declares_other_numbers(kind: str, shape: Any, tmp_path: Path):
    how, path = KINDS[kind], tmp_path / "file.npz"
    how.write(path)
    rewritten(path, how.large, header(shape) + bytes(32 if shape else 3), 0)
    said, peak = taken_by(lambda: how.read(path))
    assert "found another size" in said or "expected" in said
    assert "\n" not in said and peak < 4 << 20


def test_texts_without_characters_take_no_memory(tmp_path: Path):
    how, path = KINDS["labels"], tmp_path / "file.npz"
    how.write(path)
    rewritten(path, "ids", header((10**12,), "|S0"), 0)
    said, peak = taken_by(lambda: how.read(path))
    assert "expected an array of (1000000000000,)" in said and peak < 4 << 20


def encrypted(content: bytes) -> bytes:
    """Sets the flag of encryption in both headers of every entry."""
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        parts = content.split(mark)
        content = mark.join(
            [parts[0], *(p[: at - 4] + bytes([p[at - 4] | 1]) + p[at - 3 :] for p in parts[1:])]
        )
    return content


def broken_stream(content: bytes) -> bytes:
    at = content.index(b".npy") + 60
    return content[:at] + bytes(b ^ 0x5A for b in content[at : at + 40]) + content[at + 40 :]


def plain_array(_: bytes) -> bytes:
    file = io.BytesIO()
    np.save(file, MAPS)
    return file.getvalue()


ODD: dict[str, Callable[[bytes], bytes]] = {
    "a plain array": plain_array,
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "encrypted": encrypted,
    "a broken stream": broken_stream,
    "text": lambda content: b"id,label\n",
    "pickled": lambda content: content.replace(b"'<f2'", b"'|O' ").replace(b"'<i8'", b"'|O' "),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("kind", KINDS)
def test_odd_archives_are_one_line(kind: str, odd: str, tmp_path: Path):
    how, path = KINDS[kind], tmp_path / "file.npz"
    how.write(path)
    with zipfile.ZipFile(path) as archive:
        arrays = {one: archive.read(one) for one in archive.namelist()}
    method = zipfile.ZIP_STORED if odd == "pickled" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in arrays.items():
            archive.writestr(name, data)
    path.write_bytes(ODD[odd](path.read_bytes()))
    with pytest.raises(UserError) as caught:
        how.read(path)
    said = str(caught.value)
    assert "expected" in said and "found" in said and str(path) in said and "\n" not in said


@pytest.mark.parametrize("dtype", ["<f4", "|S1"])
@pytest.mark.parametrize("shape", [(10**13,), (3 << 30,), (-1,)])
def test_an_npy_whose_header_declares_more_than_it_has(shape: Any, dtype: str, tmp_path: Path):
    path = tmp_path / "labels.npy"
    path.write_bytes(header(shape, dtype) + b"1234")
    said, peak = taken_by(lambda: read_label_file(path, CLASSES))
    assert said.startswith(f"{path}: expected a NumPy file") and peak < 4 << 20


def test_a_member_of_a_tar_that_is_larger_than_the_archive(tmp_path: Path):
    path = tmp_path / "images.tar"
    path.write_bytes(b"0" * 1024)
    for size in (2048, 20 << 30):
        said, peak = taken_by(Entry(path, 512, size).read)
        assert f"found one that declares {size:,}" in said and peak < 4 << 20
    assert Entry(path, 512, 100).read() == b"0" * 100


def test_a_mask_in_a_submission_that_unpacks_to_gigabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("wsss_jax.data.formats.voc_submission._MOST", 1 << 20)
    path = tmp_path / "results.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(f"{folder_in_archive('comp6')}/a.png")
        member.size = 8 << 20
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    said, peak = taken_by(lambda: check_archive(path, ["a"]))
    assert "a: 8,388,608 bytes, more than a mask has" in said and peak < 4 << 20


def test_a_mask_of_too_many_pixels_is_a_fault(monkeypatch: pytest.MonkeyPatch):
    file = io.BytesIO()
    Image.new("P", (64, 64)).save(file, "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "expected a readable image" in mask_fault(file.getvalue(), None, 20)


def test_a_walk_of_a_size_without_end(tmp_path: Path):
    path = tmp_path / "file.npz"
    for size in ([np.inf, 1.0], [np.nan, 1.0]):
        np.savez(path, keys=KEYS, scores=WALK.scores, size=size, walked=[8, 8], stride=4)
        said, _ = taken_by(lambda: read_walk(path))
        assert said.startswith(f"{path}: expected the result of a walk")


@pytest.mark.parametrize("stride", [-4, 0, 1, 10**6])
@pytest.mark.parametrize("size", [(8, 8), (0, 8), (10**6, 10**6)])
def test_a_walk_that_fills_no_image(size: tuple[int, int], stride: int, tmp_path: Path):
    path = tmp_path / "file.npz"
    write_walk(path, WALK._replace(size=size, stride=stride))
    said, peak = taken_by(lambda: read_walk(path))
    assert "expected scores [K + 1, h, w] that fill an image" in said and peak < 4 << 20


@pytest.mark.parametrize("kind", KINDS)
def test_headers_and_texts_that_are_neither(kind: str, tmp_path: Path):
    how, path = KINDS[kind], tmp_path / "file.npz"
    how.write(path)
    rewritten(path, how.large, header((1, 4, 4)).replace(b"(1, 4", b"((((("), 0)
    said, _ = taken_by(lambda: how.read(path))
    assert "expected" in said and "\n" not in said
    for code in (0x110000, 0xD800):
        ids = np.array([code], np.uint32).view("<U1")
        np.savez(path, ids=ids, labels=np.array([[1, 0]]))
        said, _ = taken_by(lambda: read_label_file(path, CLASSES))
        assert "expected text in ids.npy, found other numbers" in said


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no endless device")
@pytest.mark.parametrize("kind", KINDS)
def test_an_endless_device_is_not_read(kind: str, tmp_path: Path):
    (tmp_path / "file.npz").symlink_to("/dev/zero")
    said, peak = taken_by(lambda: KINDS[kind].read(tmp_path / "file.npz"))
    assert "expected" in said and peak < 4 << 20


def spreadsheet(path: Path, sheet: str) -> None:
    """A spreadsheet whose sheet has the given rows."""
    openpyxl.Workbook().save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {one: archive.read(one) for one in archive.namelist()}
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    text = f'<worksheet xmlns="{space}"><dimension ref="A1:B2"/><sheetData>{sheet}</sheetData>'
    parts["xl/worksheets/sheet1.xml"] = f"{text}</worksheet>".encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for one, data in parts.items():
            archive.writestr(one, data)


def cell(place: str, text: str = "a") -> str:
    return f'<c r="{place}" t="inlineStr"><is><t>{text}</t></is></c>'


def test_a_spreadsheet_with_cells_far_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(table_rows, "_SPARE_CELLS", 20_000)
    path = tmp_path / "labels.xlsx"
    near = f'<row r="1">{cell("A1", "image")}{cell("B1", "class")}</row>'
    spreadsheet(path, f'{near}<row r="1500">{cell("A1500")}{cell("B1500", "cat")}</row>')
    assert [*read_label_file(path, CLASSES)] == ["a"]
    for last in (10**9, 10**18):
        spreadsheet(path, f'{near}<row r="{last}">{cell(f"A{last}")}</row>')
        said, peak = taken_by(lambda: read_label_file(path, CLASSES))
        assert "cells far behind the others" in said and peak < 8 << 20
    rows = "".join(f'<row r="{n}">{cell(f"XFD{n}")}</row>' for n in range(2, 50))
    spreadsheet(path, near + rows)
    assert "cells far behind the others" in taken_by(lambda: read_label_file(path, CLASSES))[0]


def test_a_spreadsheet_that_unpacks_to_more_than_its_file_justifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(table_rows, "_MOST_UNPACKED", 100_000)
    path = tmp_path / "labels.xlsx"
    spreadsheet(path, f"<row>{cell('A1')}</row>" * 50_000)
    said, peak = taken_by(lambda: read_label_file(path, CLASSES))
    assert "bytes unpacked, more than" in said and peak < 8 << 20
