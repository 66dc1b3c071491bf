"""VOC-shaped folders with classes, suffixes and masks of one's own."""

import io
from pathlib import Path

import pytest
from PIL import Image

from tests.toys.devkits import IDS, Devkit, objects_mask, shown
from wsss_jax.data.images import decode_image
from wsss_jax.data.masks import encode_mask


@pytest.fixture
def devkit(tmp_path: Path) -> Devkit:
    return Devkit(tmp_path)


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
        devkit.mask(name).write_bytes(encode_mask(objects_mask((1, 3))))
    classes = devkit.labels("background\ncrack\nmoss\nrust\n", "names.txt")
    source = devkit.open(classes=classes)
    assert source.classes == ("crack", "moss", "rust")
    assert shown(source) == [{"crack", "rust"}] * 3
    assert decode_image(source[0]["image"], "").shape == (12, 16, 3)

    # Another name for the same index is another data set.
    renamed = devkit.labels("crack\nmoss\nstain\n", "renamed.txt")
    again = devkit.open(classes=renamed)
    assert again.classes == ("crack", "moss", "stain") and again.digest != source.digest

    rows = "".join(f"{name},crack\n" for name in IDS)
    labels = devkit.labels(f"id,class\n{rows}{IDS[1]},3\n")
    assert shown(devkit.open(classes=classes, labels=labels))[:2] == [{"crack"}, {"crack", "rust"}]


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
    assert list(devkit.open().ids) == list(IDS)


def test_an_unknown_class_says_where_names_come_from(devkit: Devkit) -> None:
    labels = devkit.labels(f"{IDS[0]},rust\n")
    message = devkit.refuse(labels=labels)
    assert "data.classes" in message and f"'rust' for {IDS[0]}" in message
    assert "names.txt" in devkit.refuse(classes=str(devkit.folder / "names.txt"))
    two = devkit.labels("crack\nrust\n", "two.txt")
    assert "expected class indices 0 to 2 or 255, found 8" in devkit.refuse(classes=two)


def test_two_images_of_one_id(devkit: Devkit) -> None:
    image = devkit.image(IDS[1])
    image.with_suffix(".png").write_bytes(image.read_bytes())
    message = devkit.refuse()
    assert f"{IDS[1]}.jpg and {IDS[1]}.png" in message and "keep one" in message


def test_a_link_to_nowhere_is_no_image(devkit: Devkit) -> None:
    devkit.image(IDS[1]).unlink()
    devkit.image(IDS[1]).symlink_to("nowhere.jpg")
    assert f"({IDS[1]})" in devkit.refuse()


def test_images_without_class_are_mentioned(
    devkit: Devkit, capsys: pytest.CaptureFixture[str]
) -> None:
    source = devkit.open(labels=devkit.labels(f"{IDS[0]},cat\n{IDS[1]},\n{IDS[2]},cow\n"))
    assert shown(source) == [{"cat"}, set(), {"cow"}]
    note = capsys.readouterr().err
    assert f"1 of 3 images of train have no class in {devkit.folder}" in note and IDS[1] in note
