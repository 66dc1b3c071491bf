"""Changes good files: their bytes, and what text, JSON, pictures and archives are made of.

What a file is made of is told from its content. Archives and pictures get the right checksums after
a change inside, so that readers come to it.
"""

import gzip
import io
import json
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

COUNTS = (0, 1, 2, 127, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, -1)
"""Numbers that are put in the place of others."""

_NUMBERS = ("-1", "0", "99999999999999999999", "9" * 5000, "1e999", "-1e308", "NaN", "Infinity")
_NUMBERS += ("0x10", "1_0", "1.5", "½", "", "2147483648", "'1'", "null")
_PNG = b"\x89PNG\r\n\x1a\n"
_MOST = 1 << 24  # bytes of a file or a part whose form is looked at
_DEEP = 3


class Changed(NamedTuple):
    """A changed file.

    Attributes:
      data: its bytes.
      what: what was done to it.
      repaired: whether its checksums fit again, so that nobody can tell the change.
    """

    data: bytes
    what: str
    repaired: bool = False


def mutated(rng: np.random.Generator, data: bytes, others: Sequence[bytes]) -> Changed:
    """Changes a file at one to three places, or replaces it by one of another kind.

    Args:
      rng: random numbers.
      data: the file.
      others: good files of the same kind, of which parts may be taken.
    """
    if rng.random() < 0.04:
        name = str(rng.choice(list(STRANGERS)))
        return Changed(STRANGERS[name], f"{name} in its place")
    if rng.random() < 0.5:
        other = others[int(rng.integers(len(others)))]
        found = _inside(rng, data, other, 0)
        if found is not None:
            return found
    return Changed(_changed_bytes(rng, data, others), "changed bytes")


def _changed_bytes(rng: np.random.Generator, data: bytes, others: Sequence[bytes]) -> bytes:
    for _ in range(rng.integers(1, 4)):
        data = _change(rng, data, others[int(rng.integers(len(others)))])
    return data


def _change(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """One change, mostly near the beginning or the end, where a file's structure is."""
    size = len(data)
    if size < 16:
        return data + rng.bytes(16)
    near = rng.random()
    span = size if near < 0.3 else min(size, 2048)
    at = int(rng.integers(span)) if near < 0.7 else size - 1 - int(rng.integers(span))
    length = int(rng.integers(1, 1 + min(64, size - at)))
    match rng.integers(13):
        case 0 | 1:  # a bit
            return data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :]
        case 2:
            return data[:at] + rng.bytes(length) + data[at + length :]
        case 3:
            return data[:at]
        case 4:
            return data + (rng.bytes(length) if near < 0.5 else data[:at])
        case 5:
            return data[:at] + data[at + length :]
        case 6:
            return data[: at + length] + data[at:]
        case 7:  # a splice
            start = int(rng.integers(len(other))) if other else 0
            return data[:at] + other[start : start + length * 8] + data[at + length :]
        case 8:  # a count
            value = int(rng.choice(COUNTS))
            width = int(rng.choice([1, 2, 4, 8]))
            number = (value % 256**width).to_bytes(width, rng.choice(["little", "big"]))
            return data[:at] + number + data[at + width :]
        case 9:  # zeros, of a few bytes or of a block of a disk
            count = length if near < 0.5 else 512
            return data[:at] + bytes(len(data[at : at + count])) + data[at + count :]
        case 10:  # two blocks change places
            block = min(512, size // 2)
            first = int(rng.integers(size - 2 * block + 1))
            second = int(rng.integers(first + block, size - block + 1))
            moved = data[second : second + block] + data[first + block : second]
            return data[:first] + moved + data[first : first + block] + data[second + block :]
        case 11:
            return b"" if near < 0.2 else data[at:]
        case _:  # digits in a text
            digits = [i for i in range(at, min(size, at + 400)) if 48 <= data[i] < 58]
            if not digits:
                return data[:at] + b"9" * length + data[at + length :]
            return data[: digits[0]] + b"9" * length + data[digits[0] + 1 :]


def _inside(rng: np.random.Generator, data: bytes, other: bytes, depth: int) -> Changed | None:
    """Changes what a file is made of; None if that is not known."""
    if len(data) > _MOST or depth > _DEEP:
        return None
    for is_one, change in _FORMS:
        if is_one(data):
            try:
                return change(rng, data, other, depth)
            except Exception:  # It attacks, or was changed before.
                return None
    return None


def _part(rng: np.random.Generator, data: bytes, other: bytes, depth: int) -> Changed:
    found = _inside(rng, data, other, depth + 1) if rng.random() < 0.6 else None
    return found or Changed(_changed_bytes(rng, data, [other]), "changed bytes")


# Archives.


def _zip(rng: np.random.Generator, data: bytes, other: bytes, depth: int) -> Changed:
    del other
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(one.file_size for one in archive.infolist()) > _MOST:
            raise ValueError("a bomb")
        entries: list[list[Any]] = [[one, archive.read(one)] for one in archive.infolist()]
    at = int(rng.integers(len(entries)))
    match rng.integers(6):
        case 0 if len(entries) > 1:
            del entries[at]
            what = "a member dropped"
        case 1 if len(entries) > 1:
            to = int(rng.integers(len(entries)))
            entries[at][1], entries[to][1] = entries[to][1], entries[at][1]
            what = "members exchanged"
        case 2:
            name = str(rng.choice(["../a", "/etc/a", "a" * 300, "ä/ö", "keys.npy", ""]))
            entries[at][0] = zipfile.ZipInfo(name)
            what = "a member renamed"
        case _:
            part = _part(rng, entries[at][1], entries[int(rng.integers(len(entries)))][1], depth)
            entries[at][1], what = part.data, f"a member: {part.what}"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for info, content in entries:
            kind = zipfile.ZIP_DEFLATED if info.compress_type else zipfile.ZIP_STORED
            archive.writestr(zipfile.ZipInfo(info.filename), content, kind)
    return Changed(file.getvalue(), what, True)


def _gzip(rng: np.random.Generator, data: bytes, other: bytes, depth: int) -> Changed:
    plain, others = (zlib.decompressobj(31).decompress(one, _MOST + 1) for one in (data, other))
    if len(plain) > _MOST:
        raise ValueError("a bomb")
    part = _part(rng, plain, others, depth)
    return Changed(gzip.compress(part.data, 1, mtime=0), f"inside gzip: {part.what}", True)


def _tar(rng: np.random.Generator, data: bytes, other: bytes, depth: int) -> Changed:
    del other
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        files = [[one, _content(archive, one)] for one in archive]
    at = int(rng.integers(len(files)))
    member: Any = files[at][0]
    match rng.integers(6):
        case 0:
            del files[at]
            what = "a member dropped"
        case 1:
            files.append(files[at])
            what = "a member twice"
        case 2:
            names = ["../../a", "/etc/a", "results/ä.png", member.name + "x", "a\nb", ""]
            member.name = str(rng.choice(names))
            what = "a member renamed"
        case 3:
            member.type = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)[
                int(rng.integers(4))
            ]
            member.linkname = "/dev/zero"
            what = "a member that is a link or device"
        case _:
            to = int(rng.integers(len(files)))
            part = _part(rng, files[at][1], files[to][1], depth)
            files[at][1], what = part.data, f"a member: {part.what}"
            member.size = len(part.data)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for one, content in files:
            archive.addfile(one, io.BytesIO(content) if one.isreg() else None)
    return Changed(file.getvalue(), what, True)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return b"" if file is None else file.read()


# Pictures.


def _png(rng: np.random.Generator, data: bytes, other: bytes, depth: int) -> Changed:
    """Changes a chunk, or what is compressed in it, and its checksum."""
    del other
    chunks: list[list[bytes]] = []
    at = len(_PNG)
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + length]])
        at += 12 + length
    chosen = int(rng.integers(len(chunks)))
    kind, body = chunks[chosen]
    match rng.integers(5):
        case 0:
            del chunks[chosen]
            what = "a chunk dropped"
        case 1:
            chunks.insert(int(rng.integers(len(chunks) + 1)), [kind, body])
            what = "a chunk twice"
        case 2 if kind == b"IDAT":
            part = _part(rng, zlib.decompressobj().decompress(body, _MOST), body, depth)
            chunks[chosen][1], what = zlib.compress(part.data), "changed pixels"
        case _:
            part = _part(rng, body, kind * 4, depth)
            chunks[chosen][1], what = part.data, f"a chunk {kind.decode('latin1')}: {part.what}"
    return Changed(_PNG + b"".join(png_chunk(*chunk) for chunk in chunks), what, True)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """Returns a chunk of a PNG with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


# Text.


def _json(rng: np.random.Generator, data: bytes, other: bytes, depth: int) -> Changed:
    del other, depth
    value = json.loads(data)
    places = [*_places(value)]
    if not places:
        return Changed(json.dumps(_ODD[int(rng.integers(len(_ODD)))]).encode(), "other JSON", True)
    holder, key = places[int(rng.integers(len(places)))]
    match rng.integers(6):
        case 0:
            del holder[key]
            what = "a field dropped"
        case 1 if isinstance(holder, dict):
            holder[f"{key}x"] = holder.pop(key)
            what = "a field renamed"
        case 2 if isinstance(holder, list):
            holder += [holder[key]] * int(rng.choice([1, 2, 50]))
            what = "an element repeated"
        case 3:
            from_holder, from_key = places[int(rng.integers(len(places)))]
            holder[key] = json.loads(json.dumps(from_holder[from_key]))
            what = "a field from elsewhere"
        case _:
            holder[key] = _ODD[int(rng.integers(len(_ODD)))]
            what = "a field of another type"
    text = json.dumps(value, ensure_ascii=bool(rng.integers(2)))
    return Changed(text.replace('"<deep>"', "[" * 100_000).encode(), what, True)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Returns all (container, key) below a JSON value."""
    found: list[tuple[Any, Any]] = []
    keys: Any = value.keys() if isinstance(value, dict) else range(len(value))
    for key in keys if isinstance(value, dict | list) else ():
        found.append((value, key))
        if isinstance(value[key], dict | list):
            found += _places(value[key])
    return found


_ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 10**30, 10**400, -(2**63), 1e308, float("nan"), float("inf")),
    *("", "a", "a" * 10**5, "\ud800", "\0", "../../a", "/dev/zero", "a\nb", "0" * 5000, "<deep>"),
    *([], {}, [[]], [None], {"": None}, [{}], [1, "a"], [[[[[[1]]]]]], {"a": {"a": {"a": 1}}}),
    *([10**9, 10**9], [-1, -1], [float("nan")] * 8),
)


def _text(rng: np.random.Generator, data: bytes, other: bytes, depth: int) -> Changed:
    del depth
    text = data.decode()
    lines = text.splitlines(keepends=True)
    at = int(rng.integers(len(lines)))
    words = [*re.finditer(r"[^\s,;\t|<>\"=/.:]+", text)]
    word = words[int(rng.integers(len(words)))] if words else None
    numbers = [*re.finditer(r"-?\d[\d.]*", text)]
    match rng.integers(10):
        case 0 if numbers:
            one = numbers[int(rng.integers(len(numbers)))]
            new = str(rng.choice(_NUMBERS))
            return Changed((text[: one.start()] + new + text[one.end() :]).encode(), "a number")
        case 1 if word:
            return Changed((text[: word.start()] + text[word.end() :]).encode(), "a word dropped")
        case 2 if word:
            new = str(rng.choice(_WORDS))
            new = new * int(rng.choice([1, 1, 1, 40_000]))
            return Changed((text[: word.start()] + new + text[word.end() :]).encode(), "a word")
        case 3:
            del lines[at]
            return Changed("".join(lines).encode(), "a line dropped")
        case 4:
            lines[at] *= int(rng.choice([2, 2, 3000]))
            return Changed("".join(lines).encode(), "a line repeated")
        case 5:
            name = str(rng.choice(_ENCODINGS))
            return Changed(text.encode(name, "replace"), f"in {name}")
        case 6:
            old, new = rng.choice(list(",;\t|\n\r<>\"'[]{}:= "), 2)
            return Changed(text.replace(old, new).encode(), "another delimiter")
        case 7:
            return Changed(data + b"\n" + other, "two files in one")
        case 8:
            mark = (b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\0", b"\x1b[31m", b"sep=;\r\n")
            return Changed(mark[int(rng.integers(len(mark)))] + data, "something before it")
        case _:
            letter = str(rng.choice(_WORDS))
            where = int(rng.integers(len(text) + 1))
            return Changed((text[:where] + letter + text[where:]).encode(), "something inside")


_ENCODINGS = ("utf-16", "utf-32", "latin1", "cp1252", "gb2312", "shift_jis", "utf-7", "utf-16-be")
_WORDS = (
    *("ä", "猫", "😀", "\x85", "\u2028", "\x1b", "\u200b", "\x7f", "é́", "\x0b", "\0", "&a;"),
    *("..", "/", "\\", "//", "~", "$HOME", "`id`", "%s", "{0}", "'", '"', '"a', "-", "#", "\n"),
    *(
        "nan",
        "true",
        "none",
        "background",
        "__ignore__",
        "255",
        "-1",
        "<a>",
        "</a>",
        "<!--",
        "&#0;",
    ),
)


_FORMS: tuple[tuple[Callable[[bytes], Any], Callable[..., Changed]], ...] = (
    (lambda data: data.startswith(b"PK\3\4"), _zip),
    (lambda data: data.startswith(b"\x1f\x8b"), _gzip),
    (lambda data: data[257:262] == b"ustar", _tar),
    (lambda data: data.startswith(_PNG), _png),
    (lambda data: data.lstrip()[:1] in (b"{", b"["), _json),
    (lambda data: data and not re.search(rb"[\0-\x08\x0e-\x1f\x7f-\xff]", data), _text),
)


def _zip_of(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


LAUGHS = b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha">%s]><annotation>&j;</annotation>' % (
    b"".join(
        b'<!ENTITY %c "%s">' % (code, b"&%c;" % (code - 1) * 30) for code in range(ord("b"), 107)
    )
)
"""XML with an entity of entities of entities."""

STRANGERS: dict[str, bytes] = {
    "nothing": b"",
    "blanks": b" \n\t\r\n",
    "a mark of UTF-16": b"\xff\xfe",
    "zeros": bytes(1000),
    "an EPS file": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/executed) (w) file\n",
    "a PDF file": b"%PDF-1.4\n1 0 obj\n<<>>\n",
    "a web page": b"<!DOCTYPE html><html><body>404 not found</body></html>\n",
    "a shell script": b"#!/bin/sh\ntouch /tmp/executed\n",
    "Python": b"import os\nos.system('touch /tmp/executed')\n",
    "a program": b"\x7fELF\x02\x01\x01" + bytes(200),
    "a pickle that calls": b"cos\nsystem\n(S'touch /tmp/executed'\ntR.",
    "a database": b"SQLite format 3\0" + bytes(200),
    "an array": _npy(np.ones((3, 4), np.float32)),
    "an archive": _zip_of("a.npy", _npy(np.ones(3))),
    "an archive of text": _zip_of("a.txt", b"a,b\n"),
    "gzip": gzip.compress(b"a,b\n", mtime=0),
    "a tar": bytes(1024),
    "deep JSON": b"[" * 100_000,
    "deep objects": b'{"a":' * 50_000,
    "JSON": b'{"a": [1, 2.5, null, "b"]}',
    "a number": b"1",
    "a text": b'"a"',
    "deep XML": b"<a>" * 100_000,
    "XML with entities": LAUGHS,
    "XML of a file": b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>',
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "a link of Windows": b"[InternetShortcut]\r\nURL=http://localhost/\r\n",
    "a long line": b"a" * 3_000_000,
    "many lines": b"a,b\n" * 300_000,
    "quotes": b'"' * 99_999,
}
"""Files of other kinds."""
