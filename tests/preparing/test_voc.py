"""PASCAL VOC and SBD in miniature, as folders and as archives."""

import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from tests.preparing.sources import save
from wsss_jax.data.masks import decode_mask, encode_mask
from wsss_jax.data.sets.base import DataSettings
from wsss_jax.errors import UserError
from wsss_jax.prepare import main
from wsss_jax.preparing.archives import find_entries
from wsss_jax.preparing.voc import USUAL

LISTS = {"train": "2007_1 2007_2", "val": "2007_3", "trainval": "2007_1 2007_2 2007_3"}
SBD = ("2007_2", "2007_3", "2008_4", "2008_5")  # the first is in VOC's train, the second in val


def mask(index: int) -> np.ndarray:
    result = np.zeros((12, 20), np.uint8)
    result[2:6, 3:9] = index
    return result


def devkit(folder: Path, year: str = "2012") -> Path:
    root = folder / "VOCdevkit" / f"VOC{year}"
    for seed, name in enumerate((*LISTS["trainval"].split(), "2008_4", "2008_5", "2009_6")):
        save(root / "JPEGImages" / f"{name}.jpg", seed)
        annotation = root / "Annotations" / f"{name}.xml"
        annotation.parent.mkdir(exist_ok=True)
        annotation.write_text("<annotation><object><name>dog</name></object></annotation>")
    for name in LISTS["trainval"].split():
        path = root / "SegmentationClass" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_mask(mask(12)))
    for name, ids in LISTS.items():
        path = root / "ImageSets/Segmentation" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(ids.split()) + "\n")
    return root


def sbd(folder: Path) -> Path:
    """SBD with the fields of its own files."""
    (folder / "dataset/cls").mkdir(parents=True)
    for index, name in enumerate(SBD, 3):
        edges = np.empty((20, 1), object)
        edges[:] = [[np.zeros((12, 20), np.uint8)]]
        classes = {
            "Boundaries": edges,
            "Segmentation": mask(index),
            "CategoriesPresent": np.array([[index]], np.uint8),
        }
        scipy.io.savemat(folder / f"dataset/cls/{name}.mat", {"GTcls": classes})
    return folder / "dataset"


def archive(root: Path, target: Path) -> Path:
    """An official archive; a link in it leads out of it."""
    with tarfile.open(target, "w") as file:
        file.add(root.parent, "VOCdevkit")
        link = tarfile.TarInfo("VOCdevkit/VOC2012/JPEGImages/2010_1.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        file.addfile(link)
    return target


def ids(out: Path, name: str) -> list[str]:
    return (out / f"ImageSets/Segmentation/{name}.txt").read_text().split()


@pytest.mark.parametrize("form", ("devkit", "VOC2012", "a folder with an archive", "an archive"))
def test_archives_and_folders_give_the_same(form: str, tmp_path: Path):
    root = devkit(tmp_path / "source")
    out, source = tmp_path / "out", root if form == "VOC2012" else root.parent
    if "archive" in form:
        (tmp_path / "tars").mkdir()
        source = archive(root, tmp_path / "tars/VOCtrainval_11-May-2012.tar")
        source = source.parent if "folder" in form else source
    arguments = ["x.py", "voc", str(source), f"--out={out}", f"--sbd={sbd(tmp_path)}", "--partial"]
    assert main(arguments) == 0
    assert ids(out, "train") == ["2007_1", "2007_2"] and ids(out, "val") == ["2007_3"]
    assert ids(out, "train_aug") == ["2007_1", "2007_2", "2008_4", "2008_5"]
    images = {path.stem for path in (out / "JPEGImages").iterdir()}
    assert images == {"2007_1", "2007_2", "2007_3", "2008_4", "2008_5"}  # of lists alone
    for name in images:
        for path in (f"JPEGImages/{name}.jpg", f"Annotations/{name}.xml"):
            assert (out / path).read_bytes() == (root / path).read_bytes()
    # VOC's own masks stay, and SBD's are added.
    augmented = {path.stem: path for path in (out / "SegmentationClassAug").iterdir()}
    assert set(augmented) == {"2008_4", "2008_5"}
    for name, index in (("2008_4", 5), ("2008_5", 6)):
        found = decode_mask(augmented[name].read_bytes(), name, 20)
        assert np.array_equal(found, mask(index))
    record = json.loads((out / "prepared.json").read_text())
    assert record["splits"]["train_aug"] == 4 and record["year"] == "2012"
    settings = DataSettings.defaults("voc2012", root=str(out), data_dir=str(tmp_path / "records"))
    train = DataSettings.from_config(settings, "data").open("train_aug")
    assert len(train) == 4 and train[3]["label"][11] == 1
    stored = train[3]["segmentation"]
    assert stored is not None and np.array_equal(decode_mask(stored, "", 20), mask(6))


def test_pngs_of_sbd_and_a_label_file(tmp_path: Path):
    root = devkit(tmp_path / "source")
    for index, name in enumerate(SBD, 3):
        path = root / "SegmentationClassAug" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_mask(mask(index), palette=False))
    labels = tmp_path / "cls_labels.npz"
    names = ["2007_1", "2007_2", "2007_3", "2008_4", "2008_5"]
    np.savez(labels, ids=np.array(names), labels=np.eye(20, dtype=np.float32)[:5])
    out = tmp_path / "out"
    arguments = ["x.py", "voc", str(root), f"--out={out}", f"--labels={labels}", "--partial"]
    assert main(arguments) == 0
    assert ids(out, "train_aug") == ["2007_1", "2007_2", "2008_4", "2008_5"]
    found = decode_mask((out / "SegmentationClassAug/2008_4.png").read_bytes(), "", 20)
    assert np.array_equal(found, mask(5))
    rows = (out / "labels.csv").read_text().splitlines()
    assert rows[1] == '"2007_1","aeroplane"' and rows[4] == '"2008_4","boat"'
    # Files that are lost are made again; those that are there stay.
    (out / "prepared.json").rename(out / ".preparing.json")
    (out / "JPEGImages/2007_1.jpg").unlink()
    kept = (out / "SegmentationClassAug/2008_5.png").stat().st_mtime_ns
    assert main(arguments) == 0 and (out / "JPEGImages/2007_1.jpg").is_file()
    assert (out / "SegmentationClassAug/2008_5.png").stat().st_mtime_ns == kept


def test_what_is_missing_is_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = devkit(tmp_path / "source")
    (root / "JPEGImages/2007_1.jpg").unlink()
    (root / "SegmentationClass/2007_3.png").unlink()
    out = str(tmp_path / "out")
    assert main(["x.py", "voc", str(root), f"--out={out}"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    for part in (
        "train 2, not 1,464",
        "val 1, not 1,449",
        "ids without an image: 1 (2007_1)",
        "ids without a mask: 1 (2007_3)",
    ):
        assert part in message
    assert not Path(out).exists()
    assert main(["x.py", "voc", str(tmp_path / "source"), f"--out={out}", "--year=2007"]) == 2
    assert "expected VOC2007" in capsys.readouterr().err
    shutil.copytree(root, root.parent / "VOC2007")
    assert main(["x.py", "voc", str(root.parent), f"--out={out}"]) == 2
    assert "found VOC2007 and VOC2012: say which with --year" in capsys.readouterr().err
    (tmp_path / "broken.tar").write_bytes(b"\x1f\x8b and more")
    assert main(["x.py", "voc", str(tmp_path / "broken.tar"), f"--out={out}"]) == 2
    assert "expected an uncompressed .tar file" in capsys.readouterr().err


def test_usual_numbers():
    assert USUAL["2012"] == {
        **{"train": 1464, "val": 1449, "trainval": 1464 + 1449, "test": 1456, "train_aug": 10582}
    }
    assert USUAL["2007"]["trainval"] == USUAL["2007"]["train"] + USUAL["2007"]["val"] == 422


def test_a_damaged_mask_of_sbd(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = devkit(tmp_path / "source")
    path = sbd(tmp_path) / "cls/2008_4.mat"
    path.write_bytes(path.read_bytes()[:100])
    arguments = ["x.py", "voc", str(root), f"--out={tmp_path / 'out'}", f"--sbd={path.parent}"]
    assert main([*arguments, "--partial"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert (
        message.startswith("error: expected GTcls.Segmentation of SBD in") and "2008_4" in message
    )
    assert not (tmp_path / "out/prepared.json").exists()


def test_a_mask_of_sbd_whose_stream_is_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = devkit(tmp_path / "source")
    path = sbd(tmp_path) / "cls/2008_4.mat"
    content = {"GTcls": scipy.io.loadmat(path)["GTcls"]}
    scipy.io.savemat(path, content, do_compression=True)
    data = bytearray(path.read_bytes())
    data[150:170] = bytes(20)  # zlib has an exception of its own for this
    path.write_bytes(data)
    arguments = ["x.py", "voc", str(root), f"--out={tmp_path / 'out'}", f"--sbd={path.parent}"]
    assert main([*arguments, "--partial"]) == 2
    assert "expected GTcls.Segmentation of SBD in" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("size", [b"\x80" + b"\xff" * 11, b"\x80" + b"\x7f" * 11, b"77777777777\0"])
def test_an_archive_with_members_of_any_size_is_one_line(
    size: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = archive(devkit(tmp_path / "source"), tmp_path / "VOC2012.tar")
    data = bytearray(path.read_bytes())
    at = data.index(b"VOCdevkit/VOC2012/JPEGImages/2007_1.jpg")
    data[at + 124 : at + 136] = size
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    path.write_bytes(data)
    assert main(["x.py", "voc", str(path), f"--out={tmp_path / 'out'}", "--partial"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_pipe_is_no_archive_and_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "VOCtrainval.tar")
    with pytest.raises(UserError, match=r"expected an uncompressed \.tar file at .*VOCtrainval"):
        list(find_entries([tmp_path / "VOCtrainval.tar"], re.compile(".*")))
