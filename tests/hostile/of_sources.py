"""Data sets as they come: COCO, VOC and SBD, folders of photographs, and archives to submit."""

import functools
import gzip
import io
import json
import struct
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from PIL import Image

from tests.hostile.kind import Files, Kind, single
from tests.hostile.of_images import encoded, scene
from tests.hostile.pickles import some
from wsss_jax.data.formats.voc_submission import check_archive, folder_in_archive
from wsss_jax.data.masks import encode_mask
from wsss_jax.data.sets.voc2012 import Voc2012
from wsss_jax.preparing.archives import Entry
from wsss_jax.preparing.coco14 import read_coco14
from wsss_jax.preparing.folder import Options, read_folder
from wsss_jax.preparing.verify import verify
from wsss_jax.preparing.voc import augmented_mask, read_voc, write_voc
from wsss_jax.scoring.folders import evaluate

SIZE = (12, 20)


def photograph(seed: int, orientation: int = 1) -> bytes:
    """Returns a small JPEG."""
    exif = Image.Exif()
    if orientation > 1:
        exif[0x0112] = orientation
    return encoded(Image.fromarray(np.roll(scene(*SIZE), seed, 1)), "JPEG", exif=exif)


def mask(index: int) -> bytes:
    """Returns a mask with a square of a class."""
    pixels = np.zeros(SIZE, np.uint8)
    pixels[2:6, 3:9] = index
    return encode_mask(pixels)


# COCO.

_SQUARE = [0.0, 0.0, 10.0, 0.0, 10.0, 10.0, 0.0, 10.0]
_CROWD = {"size": [12, 20], "counts": [12 * 15, 12 * 5]}
_PACKED = {"size": [12, 20], "counts": "d51T1"}  # 180 and 60 pixels, and 0


def _objects(images: Sequence[int], shapes: Sequence[Any]) -> bytes:
    content = {
        "images": [
            {"id": n, "file_name": f"COCO_{n:012}.jpg", "height": 12, "width": 20} for n in images
        ],
        "annotations": [
            {
                **{"id": i, "image_id": images[i % len(images)], "category_id": 1 + i % 2},
                **{"area": 10.0 + i, "segmentation": one, "iscrowd": int(isinstance(one, dict))},
            }
            for i, one in enumerate(shapes)
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "car"}],
    }
    return json.dumps(content).encode()


@functools.cache
def _coco() -> Sequence[Files]:
    train, val = "annotations/instances_train2014.json", "annotations/instances_val2014.json"
    shapes = ([_SQUARE], _CROWD, [_SQUARE, _SQUARE])
    return [
        {
            train: _objects((1, 2), shapes),
            val: _objects((3,), [[_SQUARE]]),
            **{f"train2014/COCO_{n:012}.jpg": photograph(n) for n in (1, 2)},
            "val2014/COCO_000000000003.jpg": photograph(3),
        }
    ]


def odd_shapes(rng: np.random.Generator) -> bytes:
    """Polygons and runs that are far away, endless, or none."""
    far = [0.0, 1e9, 1e18, -1e18, 1e308, float("nan"), float("inf"), -1, 10.5, "1", None, 2**63]
    chosen = [far[int(i)] for i in rng.integers(len(far), size=8)]
    shapes: tuple[Any, ...] = (
        *(
            [chosen],
            [_SQUARE * 20_000],
            [[]],
            [[1, 2]],
            [[1] * 7],
            "a",
            5,
            None,
            [None],
            [[[1, 2]]],
        ),
        [[0.0, 0.0, float(rng.choice([1e5, 1e6, 1e7])), 1.0, 5.0, float(rng.choice([1e4, 1e8]))]],
        {"size": [12, 20], "counts": [2**62, -(2**62), 240]},
        {"size": [12, 20], "counts": [0] * 10**5 + [240]},
        {"size": [12, 20], "counts": [240.9]},
        {"size": [12, 20], "counts": "d51T1" * 1000},
        {"size": [12, 20], "counts": "o" * some(rng, 10, 10**5)},
        {"size": [10**6, 10**6], "counts": [10**12]},
        {"size": 5, "counts": [240]},
        {"size": [12, 20]},
        {"size": [12, 20], "counts": None},
        _PACKED,
    )
    shape = shapes[int(rng.integers(len(shapes)))]
    content: dict[str, Any] = json.loads(_objects((1, 2), ([_SQUARE], _CROWD)))
    content["annotations"][0]["segmentation"] = shape
    if rng.random() < 0.3:
        size = [10**5, 10**9, -1, 0, 1.5, "12", None][int(rng.integers(7))]
        content["images"][0]["height"] = size
    return json.dumps(content).encode()


def _read_coco(path: Path) -> object:
    data, problems = read_coco14(path.parent.parent, "class", True)
    problems.check("annotations of COCO")
    return sum(int(read().sum()) for read in data.masks.values())


# VOC and SBD.


def _devkit() -> dict[str, bytes]:
    names = ("2007_1", "2007_2", "2007_3")
    folder = "VOCdevkit/VOC2012"
    files = {f"{folder}/ImageSets/Segmentation/train.txt": b"2007_1\n2007_2\n"}
    files[f"{folder}/ImageSets/Segmentation/val.txt"] = b"2007_3\n"
    for seed, name in enumerate(names):
        files[f"{folder}/JPEGImages/{name}.jpg"] = photograph(seed, 6 if seed == 2 else 1)
        files[f"{folder}/SegmentationClass/{name}.png"] = mask(12)
        files[f"{folder}/Annotations/{name}.xml"] = (
            b"<annotation><object><name>dog</name></object></annotation>"
        )
    return files


def _tar(files: Mapping[str, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


@functools.cache
def _archives() -> Sequence[Files]:
    forms = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    return single("VOC2012.tar", *(_tar(_devkit(), form) for form in forms))


def tar_sizes(rng: np.random.Generator) -> bytes:
    """Members that declare sizes which are not there, sparse ones, and long names."""
    data = bytearray(_tar(_devkit(), int(rng.choice([0, 1, 2]))))
    at = 512 * int(rng.integers(len(data) // 512))
    heads = [i for i in range(0, len(data), 512) if data[i + 257 : i + 262] == b"ustar"]
    at = heads[int(rng.integers(len(heads)))]
    size = int(rng.choice([0, 1, 10**6, 3 << 30, 20 << 30, 8**11 - 1]))
    data[at + 124 : at + 136] = b"%011o\0" % size
    if rng.random() < 0.2:
        data[at + 124 : at + 136] = b"\x80" + rng.bytes(11)
    data[at + 156 : at + 157] = rng.choice([b"0", b"0", b"S", b"L", b"K", b"x", b"g", b"2", b"D"])
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return bytes(data)


def _read_voc(path: Path) -> object:
    voc, problems = read_voc(path, None, None, None, True)
    problems.check("VOC")
    write_voc(voc, path.parent / "out", True, {})
    return len(voc.lists)


@functools.cache
def _sbd() -> Sequence[Files]:
    edges = np.empty((20, 1), object)
    edges[:] = [[np.zeros((12, 20), np.uint8)]]
    pixels = np.zeros(SIZE, np.uint8)
    pixels[2:6] = 3
    classes = {
        "Boundaries": edges,
        "Segmentation": pixels,
        "CategoriesPresent": np.array([[3]], np.uint8),
    }
    found = []
    for compressed in (True, False):
        for form in ("5", "4"):
            file = io.BytesIO()
            content: Any = {"GTcls": classes if form == "5" else pixels}
            scipy.io.savemat(file, content, format=form, do_compression=compressed)
            found.append(file.getvalue())
    return single("a.mat", found[0], found[2], mask(3))


def mat_sizes(rng: np.random.Generator) -> bytes:
    """Arrays that declare what they do not have."""
    whole = bytearray(_sbd()[1]["a.mat"])
    for _ in range(int(rng.integers(1, 4))):
        at = 128 + 4 * int(rng.integers(40))
        value = int(rng.choice([0, 1, 6, 14, 15, 2**20, 2**31 - 1, 2**31, 2**32 - 1]))
        whole[at : at + 4] = struct.pack("<I", value)
    return bytes(whole)


# Folders.


@functools.cache
def _folders() -> Sequence[Files]:
    """Folders laid out like VOC, with labels of each form."""
    names = ("a", "b 2")
    images = {f"JPEGImages/{name}.jpg": photograph(i) for i, name in enumerate(names)}
    masks = {f"SegmentationClass/{name}.png": mask(i + 1) for i, name in enumerate(names)}
    text = "\n".join(names).encode()
    lists = {f"ImageSets/Segmentation/{split}.txt": text for split in ("train", "val")}
    classes = {"classes.txt": b"cat\ndog\n"}
    table = {"labels.csv": b"id,label\na,cat\nb 2,dog\n"}
    return [{**table, **classes, **lists, **images, **masks}]


def _open_folder(path: Path) -> object:
    root = path.parent
    settings = Voc2012(
        root=str(root),
        labels=str(root / "labels.csv"),
        classes=str(root / "classes.txt"),
        data_dir=str(root / "prepared"),
    )
    source = settings.open("train")
    return [source[i]["label"].tolist() for i in range(len(source))]


def _verify(path: Path) -> object:
    root = path.parent
    found = verify(root, str(root / "labels.csv"), "", str(root / "classes.txt"))
    return len(found.findings)


@functools.cache
def _photograph_folders() -> Sequence[Files]:
    images = {f"photos/{n}.jpg": photograph(i) for i, n in enumerate(("a", "b", "c", "sub/d"))}
    table = {"labels.csv": b"image,label\na.jpg,cat\nb.jpg,dog\nc.jpg,cat\nd.jpg,dog\n"}
    masks = {f"masks/{name}.png": mask(i % 2 + 1) for i, name in enumerate("abc")}
    lists = {"val.txt": b"a.jpg\nb.jpg\n", "classes.txt": b"cat\ndog\n"}
    return [{**table, **images, **masks, **lists}]


def _prepare_folder(path: Path) -> object:
    root = path.parent
    options = Options(
        labels=str(path),
        classes=str(root / "classes.txt"),
        masks=root / "masks",
        val_list=root / "val.txt",
    )
    data, problems, _ = read_folder(root / "photos", options, root / "out")
    problems.check("photographs")
    return len(data.photographs)


@functools.cache
def _scored() -> Sequence[Files]:
    files = {f"pred/{name}.png": mask(i) for i, name in enumerate("ab")}
    return [{**files, **{f"truth/{name}.png": mask(i + 1) for i, name in enumerate("ab")}}]


def _evaluate(path: Path) -> object:
    root = path.parent.parent
    return evaluate(root / "pred", root / "truth", ["a", "b"])["miou"]


# Archives to submit.

_IDS = ("2008_1", "2008_2")


@functools.cache
def _submissions() -> Sequence[Files]:
    files = {f"{folder_in_archive('comp6')}/{name}.png": mask(3) for name in _IDS}
    return single("results.tar.gz", gzip.compress(_tar(files), mtime=0))


def packed_bombs(rng: np.random.Generator) -> bytes:
    """Members that unpack to a lot, and archives in archives."""
    folder = folder_in_archive("comp6")
    name = f"{folder}/{rng.choice(['2008_1.png', 'a.png', '../a.png'])}"
    size = int(rng.choice([10**6, 2 * 10**8, 4 * 10**8]))
    packed = _zeros(name, size)
    if rng.random() < 0.3:
        return gzip.compress(_tar({name: packed}), mtime=0)
    return packed


@functools.cache
def _zeros(name: str, size: int) -> bytes:
    file = io.BytesIO()
    with gzip.GzipFile("", "wb", 1, file, 0) as packed:
        member = tarfile.TarInfo(name)
        member.size = size
        packed.write(member.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(size // 10**6):
            packed.write(bytes(10**6))
    return file.getvalue()


def packed_sizes(rng: np.random.Generator) -> bytes:
    """Members that declare sizes which are not there."""
    return gzip.compress(tar_sizes(rng), 1, mtime=0)


def _check_submission(path: Path) -> object:
    return check_archive(path, _IDS, lambda name: SIZE)


KINDS = (
    Kind("COCO 2014", _coco, _read_coco, (odd_shapes,), share=0.5),
    Kind("VOC archives", _archives, _read_voc, (tar_sizes,), share=0.5),
    Kind("SBD", _sbd, lambda path: augmented_mask(Entry(path)).sum(), (mat_sizes,)),
    Kind("archives to submit", _submissions, _check_submission, (packed_bombs, packed_sizes)),
    Kind("folders like VOC", _folders, _open_folder, share=0.1),
    Kind("folders to verify", _folders, _verify, share=0.3),
    Kind("folders to prepare", _photograph_folders, _prepare_folder, share=0.3),
    Kind("folders to score", _scored, _evaluate, share=0.3),
)
