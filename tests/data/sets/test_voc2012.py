"""VOC-shaped folders: what is read from them, when they are read again, what is refused."""

import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.toys.devkits import COW, DOG, IDS, OBJECTS, Devkit, jpeg, objects_mask, shown
from wsss_jax.data.class_names import VOC_CLASSES
from wsss_jax.data.images import decode_image
from wsss_jax.data.masks import decode_mask, encode_mask
from wsss_jax.data.prepared_source import PreparedSource
from wsss_jax.data.sets import voc2012
from wsss_jax.data.sets.voc2012 import Voc2012
from wsss_jax.data.source import Source
from wsss_jax.data.voc_folder import list_split
from wsss_jax.errors import UserError
from wsss_jax.files import read_json


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


def test_voc_2007_is_found(devkit: Devkit) -> None:
    devkit.voc.rename(devkit.voc.with_name("VOC2007"))
    assert list(devkit.open().ids) == list(IDS)
    assert list(devkit.open(root=str(devkit.voc.with_name("VOC2007"))).ids) == list(IDS)


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
