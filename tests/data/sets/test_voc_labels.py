"""Labels of VOC-shaped folders: sources in their order, tables, classes that none has."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.toys.devkits import IDS, Devkit, jpeg, objects_mask, shown
from wsss_jax.data.class_names import VOC_CLASSES
from wsss_jax.data.formats.label_tables import table_classes
from wsss_jax.data.masks import encode_mask
from wsss_jax.errors import UserError


def test_label_sources_in_order(devkit: Devkit) -> None:
    for name, objects in zip(IDS, ((), ("horse", "horse"), ("bus", "car")), strict=True):
        devkit.annotate(name, *objects)
    labels = devkit.labels(f"{IDS[0]},sofa\n{IDS[1]},1,2\n{IDS[2]}\nother,sheep\n")
    assert shown(devkit.open(labels=labels)) == [{"sofa"}, {"aeroplane", "bicycle"}, set()]
    assert shown(devkit.open()) == [set(), {"horse"}, {"bus", "car"}]
    assert shown(devkit.open(labels="xml")) == [set(), {"horse"}, {"bus", "car"}]
    assert shown(devkit.open(labels="masks")) == [{"cat"}, {"cat", "dog"}, set()]


def test_masks_are_optional_with_other_labels(devkit: Devkit) -> None:
    devkit.mask(IDS[1]).unlink()
    labels = devkit.labels("\n".join([*IDS[:2], f"{IDS[2]},cat"]))
    source = devkit.open(labels=labels, masks="none")
    assert [source[index]["segmentation"] for index in range(3)] == [None] * 3
    with pytest.raises(UserError, match="neither XML"):
        devkit.open(masks="none")


def test_test_split_needs_no_masks_and_no_labels(devkit: Devkit) -> None:
    devkit.image("2008_000001").write_bytes(jpeg(9))
    devkit.list("test", IDS[0], "2008_000001")
    source = devkit.open("test")
    assert list(source.ids) == [IDS[0], "2008_000001"]
    assert shown(source) == [set(), set()]
    assert source[0]["segmentation"] is None
    labels = devkit.labels(f"{IDS[0]},cat")
    assert shown(devkit.open("test", labels=labels)) == [{"cat"}, set()]
    devkit.list("test", IDS[0])
    assert devkit.open("test")[0]["segmentation"] is not None


def test_labels_that_lack_ids(devkit: Devkit) -> None:
    labels = devkit.labels(f"{IDS[1]},cat")
    message = devkit.refuse(labels=labels)
    assert f"found none for 2 of them in {labels} ({IDS[0]}, {IDS[2]})" in message
    devkit.annotate(IDS[0], "cat")
    assert f"found none for 2 of them in {devkit.voc / 'Annotations'}" in devkit.refuse()
    assert "no such file" in devkit.refuse(labels=str(devkit.folder / "cls_labels.npy"))


def test_a_label_file_that_is_not_there_is_refused_whatever_is_prepared(devkit: Devkit) -> None:
    devkit.open()  # from masks: the records are ready
    with pytest.raises(UserError, match="found no such file"):
        devkit.open(labels=str(devkit.folder / "typo.csv"))


def test_no_class_anywhere_is_refused(devkit: Devkit) -> None:
    labels = devkit.labels("\n".join(IDS))
    assert "found none among 3 in" in devkit.refuse(labels=labels)
    hot = "\n".join(f"{name},{','.join('0' * 20)}" for name in IDS)
    zeros = devkit.labels(f"id,{','.join(VOC_CLASSES)}\n{hot}")
    assert "found none among 3 in" in devkit.refuse(labels=zeros)
    for name in IDS:
        devkit.annotate(name)
    assert "found none among 3 in" in devkit.refuse()
    for name in IDS:
        devkit.mask(name).write_bytes(encode_mask(objects_mask(()) * 0 + 255))
    assert "found no pixel of a class in all 3 masks" in devkit.refuse(labels="masks")
    some = devkit.labels("\n".join([*IDS[:2], f"{IDS[2]},cat"]))
    assert "found no pixel of a class in all 3 masks" in devkit.refuse(labels=some)


def test_classes_that_no_image_has_are_named(
    devkit: Devkit, capsys: pytest.CaptureFixture[str]
) -> None:
    (devkit.folder / "classes.txt").write_text("cat\ncow\ndog\n")
    labels = devkit.labels("\n".join(f"{name},Dog" for name in IDS))
    devkit.open(labels=labels, classes=str(devkit.folder / "classes.txt"), masks="none")
    assert "note: no image of train has cat, cow" in capsys.readouterr().err


def test_a_folder_of_photographs_and_a_spreadsheet(
    devkit: Devkit, capsys: pytest.CaptureFixture[str]
) -> None:
    """No list, no file of classes, odd names and suffixes: two settings and the folder."""
    root = devkit.folder / "my photos"
    for seed, name in enumerate(
        ("a b.JPG", "trip 1/c.d.webp", "trip 2/e.png", "trip 2/.hidden.jpg")
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / name)
    (root / "notes.txt").write_text("nothing")
    rows = "\ufeffImage;Label\r\na b.JPG;Dog\r\nc.d.webp;cat|DOG\r\ntrip 2/e.png;Dog\r\n"
    labels = devkit.labels(rows)
    options: dict = dict(root=str(root), labels=labels, classes="labels", masks="none")
    source = devkit.open(**options)
    assert list(source.ids) == ["a b", "trip 1/c.d", "trip 2/e"]
    assert source.classes == ("cat", "Dog")
    assert shown(source) == [{"Dog"}, {"cat", "Dog"}, {"Dog"}]
    assert "note: 3 images of train by class: cat (1), Dog (3)" in capsys.readouterr().err
    assert "found no list" in devkit.refuse("val", **options)
    assert "`python -m wsss_jax.prepare folder`, or set data.labels to" in devkit.refuse(
        root=str(root)
    )
    (root / "trip 1/e.png").write_bytes((root / "trip 2/e.png").read_bytes())
    devkit.labels(rows.replace("trip 2/", ""))
    assert "'e', which may be trip 1/e or trip 2/e" in devkit.refuse(**options)


def test_the_classes_of_a_table(devkit: Devkit) -> None:
    for text, classes in (
        ("id,Rust,Scab,background\nx,1,0,0\ny,0,,1\n", ("Rust", "Scab")),
        ("x,rust,Scab\ny,Rust\nz,Rust\n", ("Rust", "Scab")),
        (",filename,class\n0,x.png,b;a\n1,y.png,\n", ("a", "b")),
    ):
        assert table_classes(Path(devkit.labels(text))) == classes
    with pytest.raises(UserError, match="expected names of classes in"):
        table_classes(Path(devkit.labels("x\ny\n")))
    assert "expected a table (.csv, .tsv, .xlsx, .xlsm) in data.labels" in devkit.refuse(
        classes="labels"
    )


def test_images_that_all_have_the_same_classes(
    devkit: Devkit, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = devkit.labels("".join(f"{name},cat\n" for name in IDS))
    devkit.open(labels=labels, masks="none")
    assert "have the same classes, so a classifier has nothing to tell" in capsys.readouterr().err
    devkit.open()
    assert "the same classes" not in capsys.readouterr().err
