"""VOC-shaped folders: what is read from them, when they are read again, what is refused."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from wsss_jax.data.class_names import VOC_CLASSES
from wsss_jax.data.images import decode_image, decode_mask, encode_mask
from wsss_jax.data.prepared import PreparedSource
from wsss_jax.data.source import Source, open_source
from wsss_jax.errors import UserError

IDS = ("2007_000001", "2007_000002", "2007_000003")
CAT, COW, DOG = (VOC_CLASSES.index(name) + 1 for name in ("cat", "cow", "dog"))
OBJECTS = {"2007_000001": (CAT,), "2007_000002": (CAT, DOG), "2007_000003": ()}


def _jpeg(seed: int, height: int = 12, width: int = 16) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def _mask(objects: tuple[int, ...], height: int = 12, width: int = 16) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[0] = 255
    for row, index in enumerate(objects, 1):
        mask[row, :5] = index
    return mask


class Devkit:
    """A VOCdevkit with three images, in `train.txt`, and prepared records beside it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.voc = folder / "VOCdevkit" / "VOC2012"
        for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
            (self.voc / name).mkdir(parents=True)
        for seed, name in enumerate(IDS):
            self.image(name).write_bytes(_jpeg(seed))
            self.mask(name).write_bytes(encode_mask(_mask(OBJECTS[name])))
        self.list("train", *IDS)

    def image(self, name: str) -> Path:
        return self.voc / "JPEGImages" / f"{name}.jpg"

    def mask(self, name: str, folder: str = "SegmentationClass") -> Path:
        return self.voc / folder / f"{name}.png"

    def list(self, split: str, *lines: str) -> None:
        path = self.voc / "ImageSets" / "Segmentation" / f"{split}.txt"
        path.write_text("".join(f"{line}\n" for line in lines))

    def labels(self, text: str, name: str = "labels.csv") -> str:
        (self.folder / name).write_text(text)
        return str(self.folder / name)

    def annotate(self, name: str, *objects: str) -> None:
        path = self.voc / "Annotations" / f"{name}.xml"
        path.parent.mkdir(exist_ok=True)
        inner = "".join(f"<object><name>{text}</name></object>" for text in objects)
        path.write_text(f"<annotation>{inner}</annotation>")

    def open(self, split: str = "train", **options: str) -> Source:
        data = {
            "builder": "voc2012_wsss",
            "root": str(self.voc.parent),
            "labels": "",
            "data_dir": str(self.folder / "prepared"),
        }
        return open_source(ConfigDict(data | options), split)

    def refuse(self, split: str = "train", **options: str) -> str:
        with pytest.raises(UserError) as caught:
            self.open(split, **options)
        message = str(caught.value)
        assert "expected" in message and "found" in message and "\n" not in message
        assert not list(self.folder.glob("prepared/*/*/*.0.0")), "something was left behind"
        return message


@pytest.fixture
def devkit(tmp_path: Path) -> Devkit:
    return Devkit(tmp_path)


def _names(source: Source) -> list[set[str]]:
    labels = (source[index]["label"] for index in range(len(source)))
    return [{source.classes[k] for k in np.flatnonzero(label)} for label in labels]


def test_classes_of_ones_own(devkit: Devkit) -> None:
    """Three classes with an index of their own each, images that are PNGs or `.jpeg`."""
    for name, suffix in zip(IDS, (".png", ".jpeg", ".jpg"), strict=True):
        content = devkit.image(name).read_bytes()
        if suffix == ".png":
            file = io.BytesIO()
            Image.fromarray(decode_image(content, name)).save(file, "PNG")
            content = file.getvalue()
        devkit.image(name).unlink()
        devkit.image(name).with_suffix(suffix).write_bytes(content)
        devkit.mask(name).write_bytes(encode_mask(_mask((1, 3))))
    classes = devkit.labels("background\ncrack\nmoss\nrust\n", "names.txt")
    source = devkit.open(classes=classes)
    assert source.classes == ("crack", "moss", "rust")
    assert _names(source) == [{"crack", "rust"}] * 3
    assert decode_image(source[0]["image"], "").shape == (12, 16, 3)

    # Another name for the same index is another data set.
    renamed = devkit.labels("crack\nmoss\nstain\n", "renamed.txt")
    again = devkit.open(classes=renamed)
    assert again.classes == ("crack", "moss", "stain") and again.digest != source.digest

    rows = "".join(f"{name},crack\n" for name in IDS)
    labels = devkit.labels(f"id,class\n{rows}{IDS[1]},3\n")
    assert _names(devkit.open(classes=classes, labels=labels))[:2] == [{"crack"}, {"crack", "rust"}]


def test_optional_masks(devkit: Devkit) -> None:
    """A split has masks where all its images have one, and none otherwise."""
    devkit.mask(IDS[2]).unlink()
    devkit.list("val", *IDS[:2])
    labels = devkit.labels("".join(f"{name},cat\n" for name in IDS))
    assert "data.masks=optional" in devkit.refuse(labels=labels)
    assert all(
        record["segmentation"] is None for record in devkit.open(labels=labels, masks="optional")
    )
    for record in devkit.open("val", labels=labels, masks="optional"):
        assert record["segmentation"] is not None


def test_suffixes_in_upper_case(devkit: Devkit) -> None:
    devkit.image(IDS[0]).rename(devkit.image(IDS[0]).with_suffix(".JPG"))
    devkit.mask(IDS[0]).rename(devkit.mask(IDS[0]).with_suffix(".PNG"))
    assert devkit.open().ids == list(IDS)


def test_an_unknown_class_says_where_names_come_from(devkit: Devkit) -> None:
    labels = devkit.labels(f"{IDS[0]},rust\n")
    message = devkit.refuse(labels=labels)
    assert "data.classes" in message and f"'rust' for {IDS[0]}" in message
    assert "names.txt" in devkit.refuse(classes=str(devkit.folder / "names.txt"))
    two = devkit.labels("crack\nrust\n", "two.txt")
    assert "expected class indices 0 to 2 or 255, found 8" in devkit.refuse(classes=two)


def test_records(devkit: Devkit) -> None:
    source = devkit.open()
    assert source.ids == list(IDS)
    assert source.classes == VOC_CLASSES and len(VOC_CLASSES) == 20
    assert isinstance(source, Source)
    for index, name in enumerate(IDS):
        record = source[index]
        assert record["id"] == name
        assert record["image"] == devkit.image(name).read_bytes(), "stored as it is"
        assert record["label"].dtype == np.float32 and record["label"].shape == (20,)
        assert record["segmentation"] is not None
        with Image.open(io.BytesIO(record["segmentation"])) as stored:
            assert stored.mode == "L"
        mask = decode_mask(record["segmentation"], name, 20)
        np.testing.assert_array_equal(mask, _mask(OBJECTS[name]))
    assert _names(source) == [{"cat"}, {"cat", "dog"}, set()]


@pytest.mark.parametrize("root", [".", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_root_may_be_any_level(devkit: Devkit, root: str) -> None:
    assert devkit.open(root=str(devkit.folder / root)).ids == list(IDS)


def test_lists_of_paths_and_blank_lines(devkit: Devkit) -> None:
    devkit.list(
        "train_aug",
        f"/JPEGImages/{IDS[2]}.jpg /SegmentationClassAug/{IDS[2]}.png",
        "",
        f"  {IDS[0]}  1",
    )
    assert devkit.open("train_aug").ids == [IDS[2], IDS[0]]


def test_masks_come_from_the_augmented_folder_first(devkit: Devkit) -> None:
    augmented = devkit.mask(IDS[0], "SegmentationClassAug")
    augmented.parent.mkdir()
    augmented.write_bytes(encode_mask(_mask((COW,))))
    assert _names(devkit.open()) == [{"cow"}, {"cat", "dog"}, set()]
    assert _names(devkit.open(masks="SegmentationClass"))[0] == {"cat"}
    with pytest.raises(UserError, match=r"for 2 \(2007_000002, 2007_000003\)"):
        devkit.open(masks="SegmentationClassAug")


def test_label_sources_in_order(devkit: Devkit) -> None:
    for name, objects in zip(IDS, ((), ("horse", "horse"), ("bus", "car")), strict=True):
        devkit.annotate(name, *objects)
    labels = devkit.labels(f"{IDS[0]},sofa\n{IDS[1]},1,2\n{IDS[2]}\nother,sheep\n")
    assert _names(devkit.open(labels=labels)) == [{"sofa"}, {"aeroplane", "bicycle"}, set()]
    assert _names(devkit.open()) == [set(), {"horse"}, {"bus", "car"}]
    assert _names(devkit.open(labels="xml")) == [set(), {"horse"}, {"bus", "car"}]
    assert _names(devkit.open(labels="masks")) == [{"cat"}, {"cat", "dog"}, set()]


def test_masks_are_optional_with_other_labels(devkit: Devkit) -> None:
    devkit.mask(IDS[1]).unlink()
    labels = devkit.labels("\n".join(IDS))
    source = devkit.open(labels=labels, masks="none")
    assert [source[index]["segmentation"] for index in range(3)] == [None] * 3
    with pytest.raises(UserError, match="neither XML"):
        devkit.open(masks="none")


def test_test_split_needs_no_masks_and_no_labels(devkit: Devkit) -> None:
    devkit.image("2008_000001").write_bytes(_jpeg(9))
    devkit.list("test", IDS[0], "2008_000001")
    source = devkit.open("test")
    assert source.ids == [IDS[0], "2008_000001"]
    assert _names(source) == [set(), set()]
    assert source[0]["segmentation"] is None
    labels = devkit.labels(f"{IDS[0]},cat")
    assert _names(devkit.open("test", labels=labels)) == [{"cat"}, set()]
    devkit.list("test", IDS[0])
    assert devkit.open("test")[0]["segmentation"] is not None


def _folder(source: Source) -> Path:
    assert isinstance(source, PreparedSource)
    return source.folder


def test_reused_until_something_changes(devkit: Devkit) -> None:
    labels = devkit.labels(f"{IDS[0]},cat\n{IDS[1]},dog\n{IDS[2]},cow\n")
    first = devkit.open(labels=labels)
    made = (_folder(first) / "dataset_info.json").stat().st_mtime_ns
    again = devkit.open(labels=labels)
    assert _folder(again) == _folder(first) and again.digest == first.digest
    assert (_folder(again) / "dataset_info.json").stat().st_mtime_ns == made

    seen = {_folder(first)}
    digests = {first.digest}

    def expect_new(source: Source, same_content: bool = False) -> None:
        assert _folder(source) not in seen
        assert (source.digest in digests) == same_content
        seen.add(_folder(source))
        digests.add(source.digest)

    devkit.labels(f"{IDS[0]},cat\n{IDS[1]},dog\n{IDS[2]},bus\n")
    expect_new(devkit.open(labels=labels))
    expect_new(devkit.open())
    devkit.image(IDS[1]).write_bytes(_jpeg(77))
    expect_new(devkit.open())
    devkit.mask(IDS[1]).write_bytes(encode_mask(_mask((DOG,))))
    expect_new(devkit.open())
    devkit.list("train", *IDS[1:])
    expect_new(devkit.open())
    os.utime(devkit.image(IDS[1]), ns=(0, 0))  # as after copying the folder
    expect_new(devkit.open(), same_content=True)
    devkit.annotate(IDS[1], "bus")
    devkit.annotate(IDS[2], "bus")
    expect_new(devkit.open())
    assert _names(devkit.open()) == [{"bus"}, {"bus"}]


def test_missing_root(devkit: Devkit) -> None:
    assert "no such folder" in devkit.refuse(root=str(devkit.folder / "nowhere"))
    assert "a folder without it" in devkit.refuse(root=str(devkit.voc / "ImageSets"))
    assert "--config.data.root=" in devkit.refuse(root="")


def test_missing_list(devkit: Devkit) -> None:
    devkit.list("val", IDS[0])
    assert "found train, val" in devkit.refuse("trainval")
    assert "SBD" in devkit.refuse("train_aug") and "SBD" not in devkit.refuse("trainval")
    devkit.list("empty")
    assert "found none" in devkit.refuse("empty")
    devkit.list("twice", IDS[0], IDS[1], IDS[0])
    assert f"{IDS[0]} more than once" in devkit.refuse("twice")
    (devkit.voc / "ImageSets/Segmentation/binary.txt").write_bytes(b"\xff\xfe\x80")
    assert "no text" in devkit.refuse("binary")


def test_listed_without_image_or_mask(devkit: Devkit) -> None:
    devkit.list("train", *IDS, *(f"2008_{number:06}" for number in range(7)))
    message = devkit.refuse()
    assert "an image for each of the 10 ids of train.txt, found none for 7" in message
    assert "2008_000004, ..." in message and "2008_000005" not in message
    devkit.list("train", *IDS)
    devkit.mask(IDS[1]).unlink()
    assert f"a mask for each of the 3 ids of train.txt, found none for 1 ({IDS[1]})" in (
        devkit.refuse()
    )


def test_broken_files_are_collected(devkit: Devkit) -> None:
    ids = [f"2009_{number:06}" for number in range(9)]
    for number, name in enumerate(ids):
        data = _jpeg(number)
        devkit.image(name).write_bytes(data[: len(data) // 2] if number > 1 else data)
        devkit.mask(name).write_bytes(encode_mask(_mask(())))
    devkit.list("train", *ids)
    message = devkit.refuse()
    assert str(devkit.image(ids[2])) in message and "truncated" in message
    assert "(and 6 more: 2009_000003, 2009_000004, 2009_000005, 2009_000006, ...)" in message


def test_mask_of_another_size(devkit: Devkit) -> None:
    devkit.mask(IDS[1]).write_bytes(encode_mask(_mask((), 16, 12)))
    message = devkit.refuse()
    assert "16 x 12" in message and "12 x 16" in message and str(devkit.mask(IDS[1])) in message


def test_mask_of_colours_or_unknown_classes(devkit: Devkit) -> None:
    with Image.open(devkit.mask(IDS[2])) as mask:
        colours = mask.convert("RGB")
    colours.save(devkit.mask(IDS[2]))
    assert "RGB pixels" in devkit.refuse() and str(devkit.mask(IDS[2])) in devkit.refuse()
    devkit.mask(IDS[2]).write_bytes(encode_mask(_mask((21,))))
    assert "found 21" in devkit.refuse() and str(devkit.mask(IDS[2])) in devkit.refuse()


def test_labels_that_lack_ids(devkit: Devkit) -> None:
    labels = devkit.labels(f"{IDS[1]},cat")
    message = devkit.refuse(labels=labels)
    assert f"found none for 2 of them in {labels} ({IDS[0]}, {IDS[2]})" in message
    devkit.annotate(IDS[0], "cat")
    assert f"found none for 2 of them in {devkit.voc / 'Annotations'}" in devkit.refuse()
    assert "no such file" in devkit.refuse(labels=str(devkit.folder / "cls_labels.npy"))


def test_real_folder_is_read_as_it_is(shared: Path, tmp_path: Path) -> None:
    data = ConfigDict(
        {
            "builder": "voc2012_wsss",
            "root": str(shared / "data/voc_animals"),
            "labels": str(shared / "data/lists/cls_labels.npy"),
            "data_dir": str(tmp_path),
        }
    )
    source = open_source(data, "val")
    assert len(source) == 199
    animals = {"cat", "cow", "dog", "horse", "sheep", "person"}
    for index in (0, 99, 198):
        record = source[index]
        image = decode_image(record["image"], record["id"])
        assert max(image.shape) == 320 and record["segmentation"] is not None
        mask = decode_mask(record["segmentation"], record["id"], 20)
        assert mask.shape == image.shape[:2] and 255 in mask
        names = {VOC_CLASSES[k] for k in np.flatnonzero(record["label"])}
        assert names == {VOC_CLASSES[k - 1] for k in np.unique(mask) if 0 < k < 255}
        assert names <= animals
