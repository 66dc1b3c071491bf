"""Labels, lists and names of classes in all forms."""

import functools
import gzip
import io
import json
import os
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl

from tests.hostile.kind import Files, Kind, single
from tests.hostile.mutations import LAUGHS
from tests.hostile.of_weights import ARCHIVES
from tests.hostile.pickles import PICKLES, calls, some
from tests.toys import clip_vocabulary
from wsss_jax.data.class_names import read_classes
from wsss_jax.data.formats.id_lists import entries, read_list
from wsss_jax.data.formats.label_tables import table_classes
from wsss_jax.data.formats.portable_pickle import dump_numpy_pickle
from wsss_jax.data.labels import (
    match,
    names_an_image,
    read_annotations,
    read_label_file,
)
from wsss_jax.preparing.label_files.sources import Wanted, find_labels
from wsss_jax.weights.clip_tokenizer import ClipTokenizer

CLASSES = ("cat", "dog", "potted plant")
IDS = ("a1", "2007_000032", "sub/b 2", "Ünï")
PHOTOGRAPHS = tuple(f"{name}.jpg" for name in IDS)

# Tables.

_TABLES = (
    "image,label\na1.jpg,cat\n2007_000032.jpg,dog\nsub/b 2.jpg,cat;dog\nÜnï.jpg,potted plant\n",
    "id;cat;dog;potted plant\na1;1;0;0\n2007_000032;0;1;0\nsub/b 2;1;1;0\nÜnï;0;0;1\n",
    "a1.jpg\tcat\n2007_000032.jpg\tdog\nsub/b 2.jpg\tcat|dog\nÜnï.jpg\tpotted plant\n",
    'filename,width,height,class,xmin\n"a1.jpg",10,20,"cat",1.5\n2007_000032.jpg,1,2,dog,3\n',
)


@functools.cache
def _tables() -> Sequence[Files]:
    texts = [text.encode(code) for text in _TABLES for code in ("utf-8", "utf-8-sig", "utf-16")]
    return [*single("a.csv", *texts), *single("a.tsv", _TABLES[2].encode())]


def _read_table(path: Path) -> object:
    """Reads a table of labels as `data.labels` does, with given classes or with its own."""
    is_image = names_an_image(IDS)
    if _is_even(path):
        return table_classes(path, is_image)
    return len(match(read_label_file(path, CLASSES, is_image), IDS, path))


def _prepare(path: Path) -> object:
    """Reads labels as `wsss_jax.prepare` does, with given classes or without."""
    known = frozenset(PHOTOGRAPHS)
    wanted = Wanted(labels=str(path), classes=() if _is_even(path) else CLASSES)
    return len(find_labels(path.parent, PHOTOGRAPHS, wanted, known.__contains__).mentions)


def _is_even(path: Path) -> bool:
    """Divides files into two halves, which are read in two ways."""
    return path.is_file() and os.access(path, os.R_OK) and path.stat().st_size % 2 == 0


def wide_rows(rng: np.random.Generator) -> bytes:
    """Rows of many cells, or one of them."""
    count = some(rng, 10, 30_000)
    cells = ("", "cat", "a1.jpg", "1", "x y z")
    rows = [str(rng.choice(cells)), *(f"{rng.choice(cells)}{i}" for i in range(3))]
    wide = ",".join(f"n{i}" if rng.random() < 0.5 else "" for i in range(count))
    rows.insert(int(rng.integers(5)), wide)
    return "\n".join(f"a1.jpg,{row}" for row in rows).encode()


@functools.cache
def _sheets() -> Sequence[Files]:
    found = []
    for text, mark in zip(_TABLES[:3], (",", ";", "\t"), strict=True):
        book = openpyxl.Workbook()
        sheet: Any = book.active
        for line in text.splitlines():
            sheet.append([int(cell) if cell.isdecimal() else cell for cell in line.split(mark)])
        book.create_sheet("notes").append(["nothing"])
        file = io.BytesIO()
        book.save(file)
        found.append(_with_part(file.getvalue(), "", b""))
    return single("a.xlsx", *found)


def _with_part(book: bytes, name: str, content: bytes) -> bytes:
    """Returns a spreadsheet with another part; files written at different times are the same."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(book)) as old, zipfile.ZipFile(file, "w") as new:
        for one in old.infolist():
            data = content if one.filename == name else old.read(one)
            if one.filename != "docProps/core.xml":  # It has the time.
                new.writestr(zipfile.ZipInfo(one.filename), data, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _sheet_with(name: str, content: bytes) -> bytes:
    return _with_part(_sheets()[0]["a.xlsx"], name, content)


_SHEET = "xl/worksheets/sheet1.xml"
_SPACE = b'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'


def far_cells(rng: np.random.Generator) -> bytes:
    """Cells at the end of a sheet, with nothing before them."""
    rows = b"".join(
        b'<row r="%d"><c r="%s%d" t="inlineStr"><is><t>a1.jpg</t></is></c></row>'
        % (number, str(rng.choice(["A", "B", "XFD", "ZZZ"])).encode(), number)
        for number in (1, 2, int(rng.choice([3, 1_048_576, 2**31, 10**18])))
    )
    size = str(rng.choice(["A1:B3", "A1:XFD1048576", "A1:ZZZ99999999", "B2", ""])).encode()
    head = b'<worksheet %s><dimension ref="%s"/><sheetData>' % (_SPACE, size)
    return _sheet_with(_SHEET, head + rows + b"</sheetData></worksheet>")


def sheet_bomb(rng: np.random.Generator) -> bytes:
    """Cells and texts that are compressed to nearly nothing."""
    count = some(rng, 10**3, 10**6)
    kind = int(rng.integers(4))
    if kind == 0:
        row = b'<row><c t="inlineStr"><is><t>a</t></is></c></row>'
        body = b"<worksheet %s><sheetData>%s</sheetData></worksheet>" % (_SPACE, row * count)
        return _sheet_with(_SHEET, body)
    if kind == 1:
        text = b"<sst %s>%s</sst>" % (_SPACE, b"<si><t>a</t></si>" * count)
        return _sheet_with("xl/sharedStrings.xml", text)
    if kind == 2:
        text = b"<sst %s><si><t>%s</t></si></sst>" % (_SPACE, b"a" * count * 50)
        return _sheet_with("xl/sharedStrings.xml", text)
    style = b"<styleSheet %s><cellXfs>%s</cellXfs></styleSheet>"
    return _sheet_with("xl/styles.xml", style % (_SPACE, b'<xf numFmtId="0"/>' * count))


def sheet_entities(rng: np.random.Generator) -> bytes:
    """Entities of entities in a part."""
    names = (_SHEET, "xl/sharedStrings.xml", "xl/workbook.xml", "[Content_Types].xml")
    return _sheet_with(str(rng.choice(names)), LAUGHS)


# NumPy.


def _vectors() -> dict[str, np.ndarray]:
    return {name: np.eye(3, dtype=np.float32)[i % 3] for i, name in enumerate(IDS)}


@functools.cache
def _pickled_labels() -> Sequence[Files]:
    vectors = _vectors()
    numbered = {2007000032: vectors["a1"], 9: vectors["a1"]}
    file = io.BytesIO()
    np.save(file, vectors, allow_pickle=True)  # pyright: ignore[reportArgumentType]
    plain = [pickle.dumps(vectors, protocol) for protocol in (0, 2, 4)]
    plain += [dump_numpy_pickle(vectors), dump_numpy_pickle(numbered), file.getvalue()]
    return single("a.npy", *plain)


def pickled(rng: np.random.Generator) -> bytes:
    """A pickle that attacks, in NumPy's form or by itself."""
    attack = PICKLES[int(rng.integers(len(PICKLES)))](rng)
    if rng.random() < 0.3:
        return attack
    file = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + attack


def calling(rng: np.random.Generator) -> bytes:
    """A pickle that calls a function."""
    return calls(rng)


def many_ids(rng: np.random.Generator) -> bytes:
    """Labels that are all the same array, or that hold themselves."""
    count = some(rng, 10, 10**5)
    vector = np.zeros(3, np.float32)
    if rng.random() < 0.3:
        held: dict[str, Any] = {"a1": vector}
        held["b"] = held
        return pickle.dumps(held, 2)
    return pickle.dumps({str(i): vector for i in range(count)}, 2)


@functools.cache
def _zipped_labels() -> Sequence[Files]:
    vectors = _vectors()
    found = []
    for save in (np.savez, np.savez_compressed):
        both: Any = (
            vectors,
            {"ids": np.array([*vectors]), "labels": np.stack([*vectors.values()])},
        )
        for arrays in both:
            file = io.BytesIO()
            save(file, **arrays)
            found.append(file.getvalue())
    return single("a.npz", *found)


def _read_labels(path: Path) -> object:
    return len(match(read_label_file(path, CLASSES), IDS, path))


# Exports of annotation programs.


@functools.cache
def _json_exports() -> Sequence[Files]:
    coco = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(PHOTOGRAPHS)],
        "annotations": [{"image_id": i, "category_id": i % 3} for i in range(4)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES)],
    }
    labelme = {
        "imagePath": "a1.jpg",
        "shapes": [{"label": "cat", "points": [[1, 2], [3, 4]]}],
        "flags": {"dog": True, "cat": False},
    }
    boxes = {"rectanglelabels": ["cat"], "x": 1.5}
    studio = [
        {
            "data": {"image": f"/data/upload/1/{name}"},
            "annotations": [{"result": [{"value": boxes}, {"value": {"choices": ["dog"]}}]}],
        }
        for name in PHOTOGRAPHS
    ]
    plain = {name: ["cat", "dog"] for name in PHOTOGRAPHS}
    listed = [{"image": name, "labels": ["cat"], "width": 20} for name in PHOTOGRAPHS]
    flags = {name: {"cat": 1, "dog": 0} for name in PHOTOGRAPHS}
    values = (coco, labelme, studio, plain, listed, flags)
    lines = "\n".join(json.dumps(one) for one in listed)
    return [
        *single("a1.json", *(json.dumps(one).encode() for one in values)),
        *single("a1.jsonl", lines.encode()),
    ]


def deep_names(rng: np.random.Generator) -> bytes:
    """Names in lists in lists, as deep as the parser allows or deeper."""
    depth = some(rng, 10, 5_000)
    return b'{"a1.jpg": ' + b"[" * depth + b'"cat"' + b"]" * depth + b"}"


def long_names(rng: np.random.Generator) -> bytes:
    """Cells of many names."""
    cell = str(rng.choice(["cat and ", "cat;", "c-", "cat, ", " ", "cat/", "&"]))
    name = cell * some(rng, 10, 3 * 10**5)
    return json.dumps({"a1.jpg": name, "Ünï.jpg": [name, "cat"]}).encode()


@functools.cache
def _xml_exports() -> Sequence[Files]:
    one = "<annotation><filename>a1.jpg</filename><size><width>5</width></size>%s</annotation>"
    objects = "".join(
        f"<object><name>{name}</name><part><name>head</name></part></object>" for name in CLASSES
    )
    head = '<?xml version="1.0" encoding="{}"?>'
    cvat = "".join(
        f'<image id="{i}" name="{name}"><box label="cat"/><tag label="dog"/></image>'
        for i, name in enumerate(PHOTOGRAPHS)
    )
    texts = [one % objects, one % "", f"<annotations>{cvat}</annotations>\n"]
    texts[2] += " " * (len(texts[2].encode()) % 2)  # it is only read by `_prepare`
    encoded = [(head.format("gb2312") + texts[0]).encode("gb2312"), texts[0].encode("utf-16")]
    return single("a1.xml", *(text.encode() for text in texts), *encoded)


def xml_encodings(rng: np.random.Generator) -> bytes:
    """Encodings that are unknown, wrong, or no encodings of text."""
    names = ("gb2312", "utf-7", "zlib", "hex", "idna", "unicode_escape", "undefined", "utf-16", "x")
    name = str(rng.choice([*names, "rot13", "punycode", "base64", "mbcs", "utf-8-sig", "cp037"]))
    text = f'<?xml version="1.0" encoding="{name}"?><annotation><object><name>cat</name></object>'
    return (text + "</annotation>").encode() + rng.bytes(int(rng.integers(3)))


def xml_bombs(rng: np.random.Generator) -> bytes:
    """Many elements, deep elements and entities."""
    count = some(rng, 100, 300_000)
    parts = (
        b"<annotation>" + b"<object><name>cat</name></object>" * count + b"</annotation>",
        b"<annotation>" + b"<a>" * count + b"</a>" * count + b"</annotation>",
        b"<annotation><object><name>" + b"a" * count + b"</name></object></annotation>",
        b"<annotation " + b" ".join(b'a%d=""' % i for i in range(count // 10)) + b"/>",
        LAUGHS,
        b'<!DOCTYPE a [<!ENTITY % p SYSTEM "http://localhost:9/a"> %p;]><annotation/>',
        b'<!DOCTYPE a [<!ENTITY b SYSTEM "/dev/zero">]><annotation>&b;</annotation>',
    )
    return parts[int(rng.integers(len(parts)))]


def _read_annotation(path: Path) -> object:
    """Reads an annotation as the data set and as `wsss_jax.prepare` do."""
    if _is_even(path):
        return _prepare(path)
    return len(read_annotations(path.parent, ["a1"], CLASSES))


# Lists and names.


@functools.cache
def _lists() -> Sequence[Files]:
    pairs = "".join(f"/JPEGImages/{n}.jpg /SegmentationClassAug/{n}.png\n" for n in ("a1", "b"))
    flags = "a1  1\n2007_000032 -1\nscan 2\n"
    texts = ["\n".join(IDS) + "\n", "\r\n".join(PHOTOGRAPHS), pairs, flags]
    return single("a.txt", *(text.encode() for text in texts), texts[0].encode("utf-16"))


def long_lines(rng: np.random.Generator) -> bytes:
    """Lines that a pattern may take long for."""
    count = some(rng, 10, 10**5)
    parts = ("a/", " ", "a ", ".jpg", "a.jpg ", "/", "a\\", "1 ", ". ", "-", ";.jpg", "a/b ", "1: ")
    chosen = rng.choice(parts, 2)
    return (chosen[0] * count + chosen[1] * count + "\n").encode()


def _read_list(path: Path) -> object:
    read_list(path, lambda name: name in IDS)
    return [entry.masks for entry in entries(path, lambda name: name in IDS)][:3]


@functools.cache
def _class_files() -> Sequence[Files]:
    names = "\n".join(CLASSES)
    numbered = "\n".join(f"{i}: {name}" for i, name in enumerate(("background", *CLASSES)))
    cvat = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:1,2,3::\ndog:4,5,6::\n"
    texts = (names, f"__ignore__\n_background_\n{names}", numbered, cvat)
    return single("a.txt", *(text.encode() for text in texts))


def _read_vocabulary(path: Path) -> object:
    tokenizer = ClipTokenizer(path.parent)
    return tokenizer(["a photo of a cat"]).sum()


@functools.cache
def _vocabularies() -> Sequence[Files]:
    lines = "\n".join(["#version: toy", *clip_vocabulary.MERGES, ""])
    numbers = {word: number for number, word in enumerate(clip_vocabulary.WORDS)}
    return [
        {"bpe_simple_vocab_16e6.txt.gz": gzip.compress(lines.encode(), mtime=0)},
        {"vocab.json": json.dumps(numbers).encode(), "merges.txt": lines.encode()},
    ]


KINDS = (
    Kind("tables", _tables, _read_table, (long_lines, wide_rows)),
    Kind("tables to prepare", _tables, _prepare, (long_lines, wide_rows)),
    Kind("spreadsheets", _sheets, _read_table, (far_cells, sheet_bomb, sheet_entities), share=0.3),
    Kind("labels (.npy)", _pickled_labels, _read_labels, (pickled, pickled, calling, many_ids)),
    Kind("labels (.npz)", _zipped_labels, _read_labels, ARCHIVES),
    Kind("exports in JSON", _json_exports, _prepare, (deep_names, long_names)),
    Kind("exports in XML", _xml_exports, _read_annotation, (xml_encodings, xml_bombs)),
    Kind("lists of images", _lists, _read_list, (long_lines,)),
    Kind("names of classes", _class_files, lambda path: read_classes(str(path)), (long_lines,)),
    Kind("vocabularies", _vocabularies, _read_vocabulary, share=0.5),
)
