"""VOC-shaped folders: what is read from them, when they are read again, what is refused."""

import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.toys.devkits import COW, DOG, IDS, OBJECTS, Devkit, jpeg, objects_mask, shown
from wsss_jax.data.class_names import VOC_CLASSES
from wsss_jax.data.formats.label_tables import table_classes
from wsss_jax.data.images import decode_image, decode_mask, encode_mask
from wsss_jax.data.prepared_source import PreparedSource
from wsss_jax.data.sets import voc2012
from wsss_jax.data.sets.voc2012 import Voc2012
from wsss_jax.data.source import Source
from wsss_jax.data.voc_folder import list_split
from wsss_jax.errors import UserError
from wsss_jax.files import read_json


@pytest.fixture
def devkit(tmp_path: Path) -> Devkit:
    return Devkit(tmp_path)


def test_records(devkit: Devkit) -> None:
    source = devkit.open()
    assert list(source.ids) == list(IDS)
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
        np.testing.assert_array_equal(mask, objects_mask(OBJECTS[name]))
    assert shown(source) == [{"cat"}, {"cat", "dog"}, set()]


@pytest.mark.parametrize("root", [".", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_root_may_be_any_level(devkit: Devkit, root: str) -> None:
    assert list(devkit.open(root=str(devkit.folder / root)).ids) == list(IDS)


def test_lists_of_paths_and_blank_lines(devkit: Devkit) -> None:
    devkit.list(
        "train_aug",
        f"/JPEGImages/{IDS[2]}.jpg /SegmentationClassAug/{IDS[2]}.png",
        "",
        f"  {IDS[0]}  1",
    )
    assert list(devkit.open("train_aug").ids) == [IDS[2], IDS[0]]


def test_masks_come_from_the_augmented_folder_first(devkit: Devkit) -> None:
    augmented = devkit.mask(IDS[0], "SegmentationClassAug")
    augmented.parent.mkdir()
    augmented.write_bytes(encode_mask(objects_mask((COW,))))
    assert shown(devkit.open()) == [{"cow"}, {"cat", "dog"}, set()]
    assert shown(devkit.open(masks="SegmentationClass"))[0] == {"cat"}
    with pytest.raises(UserError, match=r"for 2 \(2007_000002, 2007_000003\)"):
        devkit.open(masks="SegmentationClassAug")


@pytest.mark.parametrize("masks", ["", "none", "optional"])
def test_fingerprint_covers_names_sizes_and_times_in_the_order_of_the_ids(
    devkit: Devkit, masks: str
) -> None:
    ids = [IDS[2], IDS[0], IDS[1]]
    devkit.list("train", *ids)
    devkit.image(IDS[0]).rename(devkit.image(IDS[0]).with_suffix(".PNG"))
    augmented = devkit.mask(IDS[1], "SegmentationClassAug")
    augmented.parent.mkdir()
    augmented.write_bytes(devkit.mask(IDS[1]).read_bytes())
    devkit.annotate(IDS[0], "cat")
    for other in ("x" * 60, "2007", f"{IDS[0]}.jpg"):  # files of no id
        (devkit.voc / "JPEGImages" / f"{other}.jpg").touch()
    images = [
        devkit.image(ids[0]),
        devkit.voc / "JPEGImages" / f"{IDS[0]}.PNG",
        devkit.image(ids[2]),
    ]
    true = [devkit.mask(ids[0]), devkit.mask(ids[1]), augmented]
    annotations = [devkit.voc / "Annotations" / f"{IDS[0]}.xml"]
    text = json.dumps(["train", ids, VOC_CLASSES])
    for path in (*images, *([] if masks == "none" else true), *annotations):
        state = path.stat()
        text += f"{path.parent.name}/{path.name} {state.st_size} {state.st_mtime_ns}\n"
    listing = list_split(str(devkit.voc), "train", masks=masks)
    assert listing.fingerprint == hashlib.sha256(text.encode()).hexdigest()
    assert list(listing.ids) == ids and list(listing.images) == images
    assert listing.masks is None if masks == "none" else list(listing.masks or ()) == true


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
    devkit.image(IDS[1]).write_bytes(jpeg(77))
    expect_new(devkit.open())
    devkit.mask(IDS[1]).write_bytes(encode_mask(objects_mask((DOG,))))
    expect_new(devkit.open())
    devkit.list("train", *IDS[1:])
    expect_new(devkit.open())
    os.utime(devkit.image(IDS[1]), ns=(0, 0))  # as after copying the folder
    expect_new(devkit.open(), same_content=True)
    devkit.annotate(IDS[1], "bus")
    devkit.annotate(IDS[2], "bus")
    expect_new(devkit.open())
    assert shown(devkit.open()) == [{"bus"}, {"bus"}]


def test_missing_root(devkit: Devkit) -> None:
    assert "no such folder" in devkit.refuse(root=str(devkit.folder / "nowhere"))
    assert "a folder of other files" in devkit.refuse(root=str(devkit.voc / "ImageSets"))
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


def test_two_files_of_one_id(devkit: Devkit) -> None:
    devkit.image(IDS[1]).with_suffix(".png").touch()
    devkit.image(IDS[1]).with_suffix(".gif").touch()
    assert f"found {IDS[1]}.jpg and {IDS[1]}.png: keep one" in devkit.refuse()


def test_broken_files_are_collected(devkit: Devkit) -> None:
    ids = [f"2009_{number:06}" for number in range(9)]
    for number, name in enumerate(ids):
        data = jpeg(number)
        devkit.image(name).write_bytes(data[: len(data) // 2] if number > 1 else data)
        devkit.mask(name).write_bytes(encode_mask(objects_mask(())))
    devkit.list("train", *ids)
    message = devkit.refuse()
    assert str(devkit.image(ids[2])) in message and "truncated" in message
    assert "(and 6 more: 2009_000003, 2009_000004, 2009_000005, 2009_000006, ...)" in message


@pytest.mark.parametrize("vanishes", [True, False])
def test_files_that_change_while_they_are_prepared_are_told(
    devkit: Devkit, vanishes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"2009_{number:06}" for number in range(4)]
    for number, name in enumerate(ids):
        devkit.image(name).write_bytes(jpeg(number))
        devkit.mask(name).write_bytes(encode_mask(objects_mask((1,))))
    devkit.list("train", *ids)
    tell = voc2012._Found.tell

    def then_change(found: voc2012._Found) -> None:
        tell(found)
        if vanishes:
            devkit.image(ids[2]).unlink()
        else:
            devkit.image(ids[2]).write_bytes(jpeg(7))
            os.utime(devkit.image(ids[2]), ns=(2**62, 2**62))

    monkeypatch.setattr(voc2012._Found, "tell", then_change)
    message = devkit.refuse()
    assert ids[2] in message
    assert ("found none for 1" if vanishes else f"newest one is {devkit.image(ids[2])}") in message
    monkeypatch.undo()
    devkit.image(ids[2]).write_bytes(jpeg(8))
    assert devkit.open()[2]["image"] == jpeg(8)


def test_damaged_images_are_left_out_up_to_a_share(
    devkit: Devkit, capsys: pytest.CaptureFixture
) -> None:
    ids = [f"2009_{number:06}" for number in range(10)]
    for number, name in enumerate(ids):
        devkit.image(name).write_bytes(jpeg(number))
        devkit.mask(name).write_bytes(encode_mask(objects_mask((1,))))
    devkit.list("train", *ids)
    whole = devkit.open()
    for name in (ids[0], ids[7]):
        os.truncate(devkit.image(name), 300)
    strict = devkit.refuse(damaged_share=0.1)
    assert strict.endswith(
        f"(and 1 more: {ids[7]}); --config.data.damaged_share=0.2 leaves damaged images out"
    )
    capsys.readouterr()
    source = devkit.open(damaged_share=0.2)
    kept = [name for name in ids if name not in (ids[0], ids[7])]
    assert list(source.ids) == [source[i]["id"] for i in range(8)] == kept
    assert list(source.sizes) == [source[i]["size"] for i in range(8)]
    assert source.digest != whole.digest and len(source) == 8
    assert isinstance(source, PreparedSource)
    told = capsys.readouterr().err.splitlines()[-1]
    skipped = source.folder / "skipped.json"
    assert told == (
        f"note: 2 damaged images (named in {skipped}) were left out of the 10 images of train"
    )
    reasons = read_json(skipped)
    assert list(reasons) == [ids[0], ids[7]] == list(source.left_out)
    assert str(devkit.image(ids[0])) in reasons[ids[0]] and "truncated" in reasons[ids[0]]
    # They are there now, and are still refused, and told at every opening.
    assert devkit.refuse(damaged_share=0.1) == strict
    devkit.open(damaged_share=0.5)
    assert "2 damaged images" in capsys.readouterr().err


def test_a_split_of_damaged_images_is_refused(devkit: Devkit) -> None:
    for name in IDS:
        os.truncate(devkit.image(name), 100)
    message = devkit.refuse(damaged_share=1.0)
    assert "truncated" in message and "leaves damaged images out" not in message
    with pytest.raises(UserError, match=r"expected damaged_share from 0 to 1, found 1.5"):
        devkit.open(damaged_share=1.5)


def test_mask_of_another_size(devkit: Devkit) -> None:
    devkit.mask(IDS[1]).write_bytes(encode_mask(objects_mask((), 16, 12)))
    message = devkit.refuse()
    assert "16 x 12" in message and "12 x 16" in message and str(devkit.mask(IDS[1])) in message


def test_mask_of_colors_or_unknown_classes(devkit: Devkit) -> None:
    with Image.open(devkit.mask(IDS[2])) as mask:
        colors = mask.convert("RGB")
    colors.save(devkit.mask(IDS[2]))
    assert "RGB pixels" in devkit.refuse() and str(devkit.mask(IDS[2])) in devkit.refuse()
    devkit.mask(IDS[2]).write_bytes(encode_mask(objects_mask((21,))))
    assert "found 21" in devkit.refuse() and str(devkit.mask(IDS[2])) in devkit.refuse()


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


def test_ids_with_blanks_and_in_subfolders(devkit: Devkit) -> None:
    names = ("scan", "scan 2", "a1", "cam1/a1", "cam2/a1", "flag 1")
    labels = []
    for seed, name in enumerate(names):
        for path in (devkit.image(name), devkit.mask(name)):
            path.parent.mkdir(exist_ok=True)
        devkit.image(name).write_bytes(jpeg(seed, 12, 16 + seed))
        devkit.mask(name).write_bytes(encode_mask(objects_mask((seed + 1,), 12, 16 + seed)))
        labels.append(f"{name}.jpg,{VOC_CLASSES[seed + 1]}")
    listed = ("scan 2", "cam2/a1.jpg", "/JPEGImages/cam1/a1.jpg", "flag 1")
    devkit.list("train", *listed)
    source = devkit.open()
    assert list(source.ids) == ["scan 2", "cam2/a1", "cam1/a1", "flag 1"]
    assert [width for _, width in source.sizes] == [17, 20, 19, 21]
    assert source[1]["image"] == devkit.image("cam2/a1").read_bytes()
    assert shown(source) == [{VOC_CLASSES[k]} for k in (1, 4, 3, 5)]
    table = devkit.labels("\n".join(labels))
    assert shown(devkit.open(labels=table)) == [{VOC_CLASSES[k + 1]} for k in (1, 4, 3, 5)]
    devkit.list("train", "cam3/a1.jpg", "scan 3")
    assert "found none for 2 (cam3/a1, scan 3)" in devkit.refuse()


def test_the_masks_that_a_list_names_are_used(devkit: Devkit) -> None:
    pairs = [f"/JPEGImages/{name}.jpg /PseudoLabels/{name}.png" for name in IDS[:2]]
    devkit.list("train", *pairs)
    assert f"found none for 2 ({IDS[0]}, {IDS[1]}) in {devkit.voc}/PseudoLabels" in devkit.refuse()
    for name in IDS:
        path = devkit.mask(name, "PseudoLabels")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_mask(objects_mask((COW,))))
    assert shown(devkit.open()) == [{"cow"}, {"cow"}]
    assert shown(devkit.open(masks="SegmentationClass")) == [{"cat"}, {"cat", "dog"}]
    devkit.list("train", *pairs, f"/JPEGImages/{IDS[2]}.jpg /SegmentationClass/{IDS[2]}.png")
    assert "found PseudoLabels for" in devkit.refuse()
    devkit.list("train", f"/JPEGImages/{IDS[0]}.jpg /PseudoLabels/{IDS[1]}.png")
    assert f"FOLDER/{IDS[0]}.png" in devkit.refuse()
    # Of VOC's two folders, the named one comes first.
    devkit.mask(IDS[0], "PseudoLabels").parent.rename(devkit.voc / "SegmentationClassAug")
    for folder, expected in (("SegmentationClass", "cat"), ("SegmentationClassAug", "cow")):
        devkit.list("train", f"/JPEGImages/{IDS[0]}.jpg /{folder}/{IDS[0]}.png")
        assert shown(devkit.open()) == [{expected}]


@pytest.mark.parametrize(
    "suffix", [".Jpg", ".JPEG", ".png", ".pNg", ".tif", ".TIFF", ".webp", ".bmp"]
)
def test_photographs_in_other_formats(devkit: Devkit, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    devkit.image(IDS[0]).unlink()
    path = devkit.image(IDS[0]).with_suffix(suffix)
    Image.fromarray(pixels).save(path, lossless=True)
    record = devkit.open()[0]
    assert record["image"] == path.read_bytes()
    image = decode_image(record["image"], "x")
    if "jp" not in suffix.lower():
        np.testing.assert_array_equal(image, pixels)


def turned_jpeg(pixels: np.ndarray, orientation: int) -> bytes:
    """A JPEG of pixels that viewers turn by its EXIF orientation."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(2, 9))
def test_photographs_are_turned_like_their_masks(
    devkit: Devkit, orientation: int, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = np.zeros((64, 96, 3), np.uint8)
    stored[8:24, 16:40] = 255
    data = turned_jpeg(stored, orientation)
    with Image.open(io.BytesIO(data)) as image:
        as_shown = np.array(ImageOps.exif_transpose(image))[..., 0] > 128
    devkit.image(IDS[0]).write_bytes(data)
    devkit.mask(IDS[0]).write_bytes(encode_mask(as_shown.astype(np.uint8)))
    devkit.list("train", IDS[0])
    record = devkit.open()[0]
    assert "1 images of train are turned as their EXIF" in capsys.readouterr().err
    assert record["segmentation"] is not None
    assert record["size"] == as_shown.shape
    bright = decode_image(record["image"], "x")[..., 0] > 128
    mask = decode_mask(record["segmentation"], "x", 20) == 1
    assert (bright & mask).sum() / (bright | mask).sum() == 1
    if orientation >= 5:
        devkit.mask(IDS[0]).write_bytes(encode_mask((stored[..., 0] > 0).astype(np.uint8)))
        message = devkit.refuse()
        assert f"EXIF orientation ({orientation}) exchanges width and height" in message


def test_the_digest_knows_what_is_done_to_pixels(devkit: Devkit) -> None:
    """The digests of usual images are those of version 1.2.0 of the records."""
    devkit.list("train", IDS[0])
    first = devkit.open()
    parts = (IDS[0].encode(), devkit.image(IDS[0]).read_bytes(), first[0]["label"].tobytes())
    digest = hashlib.sha256("\n".join(VOC_CLASSES).encode())
    mask = first[0]["segmentation"]
    for part in (*parts, mask or b""):
        digest.update(len(part).to_bytes(8, "little") + part)
    assert first.digest == digest.hexdigest()
    data = turned_jpeg(np.zeros((12, 16, 3), np.uint8), 3)
    devkit.image(IDS[0]).write_bytes(data)
    digest = hashlib.sha256("\n".join(VOC_CLASSES).encode())
    for part in (parts[0], data, parts[2], mask or b""):
        digest.update(len(part).to_bytes(8, "little") + part)
    assert devkit.open().digest != digest.hexdigest()


def test_sixteen_bits_are_scaled_by_what_the_image_uses(
    devkit: Devkit, capsys: pytest.CaptureFixture[str]
) -> None:
    values = np.linspace(0, 4095, 12 * 16).astype(np.uint16).reshape(12, 16)
    devkit.image(IDS[0]).unlink()
    Image.fromarray(values).save(devkit.image(IDS[0]).with_suffix(".png"))
    record = devkit.open()[0]
    noted = capsys.readouterr().err
    assert f"use 12 of them ({IDS[0]}); they are divided by 16" in noted
    image = decode_image(record["image"], "x")
    assert len(np.unique(image)) > 150, "levels of gray"
    np.testing.assert_array_equal(image[..., 1], values >> 4)


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


def test_masks_of_zero_and_255(devkit: Devkit) -> None:
    classes = devkit.folder / "classes.txt"
    classes.write_text("polyp\n")
    for name in IDS:
        pixels = np.zeros((12, 16), np.uint8)
        pixels[2:6, 3:9] = 255
        devkit.mask(name).write_bytes(encode_mask(pixels))
    assert "set --config.data.foreground=255" in devkit.refuse(classes=str(classes))
    options: dict = {"classes": str(classes), "foreground": 255}
    record = devkit.open(**options)[0]
    assert record["label"].tolist() == [1] and record["segmentation"] is not None
    mask = decode_mask(record["segmentation"], "x", 1)
    np.testing.assert_array_equal(mask[2:6, 3:9], 1)
    assert mask.sum() == 24
    assert "found 20: leave foreground out" in devkit.refuse(foreground=255)
    pixels[0, 0] = 1
    devkit.mask(IDS[2]).write_bytes(encode_mask(pixels))
    assert "expected 0 and 255 (the foreground), found 1" in devkit.refuse(**options)


def test_images_that_are_no_files(devkit: Devkit) -> None:
    devkit.image(IDS[0]).unlink()
    os.mkfifo(devkit.image(IDS[0]))
    assert "found a pipe, device or folder" in devkit.refuse()
    devkit.image(IDS[0]).unlink()
    devkit.image(IDS[0]).symlink_to("/dev/zero")
    assert "found a pipe, device or folder" in devkit.refuse()
    devkit.image(IDS[0]).unlink()
    devkit.image(IDS[0]).mkdir()
    assert str(devkit.image(IDS[0])) in devkit.refuse()


def test_voc_2007_is_found(devkit: Devkit) -> None:
    devkit.voc.rename(devkit.voc.with_name("VOC2007"))
    assert list(devkit.open().ids) == list(IDS)
    assert list(devkit.open(root=str(devkit.voc.with_name("VOC2007"))).ids) == list(IDS)


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


@pytest.mark.parametrize("every", [20, pytest.param(1, marks=pytest.mark.slow)])
def test_real_folder_is_read_as_it_is(shared: Path, tmp_path: Path, every: int) -> None:
    real, root = shared / "data/voc_animals/VOCdevkit/VOC2012", tmp_path / "VOC2012"
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    for folder in ("JPEGImages", "SegmentationClass"):
        (root / folder).symlink_to(real / folder)
    names = (real / "ImageSets/Segmentation/val.txt").read_text().splitlines(keepends=True)
    (root / "ImageSets/Segmentation/val.txt").write_text("".join(names[::every]))
    data = Voc2012(
        root=str(shared / "data/voc_animals" if every == 1 else root),
        # The file has all of VOC's labels, and takes its time.
        labels=str(shared / "data/lists/cls_labels.npy") if every == 1 else "masks",
        data_dir=str(tmp_path / "data"),
    )
    source = data.open("val")
    count = len(source)
    assert count == -(-199 // every)
    animals = {"cat", "cow", "dog", "horse", "sheep", "person"}
    for index in (0, count // 2, count - 1):
        record = source[index]
        image = decode_image(record["image"], record["id"])
        assert max(image.shape) == 320 and record["segmentation"] is not None
        mask = decode_mask(record["segmentation"], record["id"], 20)
        assert mask.shape == image.shape[:2] and 255 in mask
        names = {VOC_CLASSES[k] for k in np.flatnonzero(record["label"])}
        assert names == {VOC_CLASSES[k - 1] for k in np.unique(mask) if 0 < k < 255}
        assert names <= animals
