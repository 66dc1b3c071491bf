"""Lists of ids and files, as the programs of the field and spreadsheets write them."""

from pathlib import Path

import pytest

from wsss_jax.data.formats.id_lists import Entry, entries, image_id, read_list
from wsss_jax.errors import UserError

THERE = {"scan", "scan 2", "flag 1", "2007_000032", "cam2/a1", "a 1"}


def read(folder: Path, text: str) -> list[Entry]:
    path = folder / "list.txt"
    path.write_text(text, newline="")
    return list(entries(path, THERE.__contains__))


@pytest.mark.parametrize(
    ("line", "name", "masks"),
    [
        ("2007_000032", "2007_000032", ""),
        ("  2007_000032  1", "2007_000032", ""),  # VOC's list of a class
        ("2007_000032 -1", "2007_000032", ""),
        ("scan 2", "scan 2", ""),  # beside an image `scan`
        ("flag 1", "flag 1", ""),
        ("a 1", "a 1", ""),
        ("absent 1", "absent 1", ""),
        ("absent 2", "absent 2", ""),
        ("scan 3", "scan 3", ""),
        ("a1.jpg", "a1", ""),
        ("a1.JPG", "a1", ""),
        ("scan 2.jpeg", "scan 2", ""),
        ("b.v2.webp", "b.v2", ""),
        ("img.v2", "img.v2", ""),
        ("cam2/a1", "cam2/a1", ""),
        ("cam2/a1.jpg", "cam2/a1", ""),
        ("./cam2/a1.jpg", "cam2/a1", ""),
        (r"cam2\a1.jpg", "cam2/a1", ""),
        ("/JPEGImages/cam2/a1.jpg", "cam2/a1", ""),
        ("/data/VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg", "2007_000032", ""),
        (r"C:\data\VOC2012\JPEGImages\2007_000032.jpg", "2007_000032", ""),
        ("/JPEGImages/a.jpg /SegmentationClassAug/a.png", "a", "SegmentationClassAug"),
        ("JPEGImages/a.jpg\tSegmentationClass/a.png", "a", "SegmentationClass"),
        ("JPEGImages/a.jpg,PseudoLabels/a.png", "a", "PseudoLabels"),
        ("/JPEGImages/scan 2.jpg /My Masks/scan 2.png", "scan 2", "My Masks"),
        ("/JPEGImages/cam2/a1.jpg /Masks/cam2/a1.png", "cam2/a1", "Masks"),
        ("/d/VOC2012/JPEGImages/a.jpg /d/VOC2012/Masks/a.png", "a", "Masks"),
        ("JPEGImages/a SegmentationClass/a", "a", "SegmentationClass"),
        ("a.jpg a.png", "a", ""),
    ],
)
def test_lines(tmp_path: Path, line: str, name: str, masks: str):
    assert read(tmp_path, f"\ufeff{line}\r\n\r\n") == [Entry(name, masks)]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("/JPEGImages/a.jpg /Masks/b.png", "expected the mask of .*a.jpg as FOLDER/a.png"),
        ("/JPEGImages/a.jpg /Masks/aa.png", "FOLDER/a.png"),
        ("../a", r"found '\.\./a'"),
        (
            "/JPEGImages/../../etc/a.jpg",
            r"expected the name of an image, .*found '/JPEG.*\.\./etc/a\.jpg'",
        ),
        ("cam2//a1.jpg", "expected the name of an image"),
        ("cam2/", "expected the name of an image"),
        (". a/" * 50_000, "an image and its mask, found 200,000 characters"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, line: str, found: str):
    with pytest.raises(UserError, match=f"line 2 of .*list.txt: .*{found}") as caught:
        read(tmp_path, f"2007_000032\n{line}\n")
    assert "\n" not in str(caught.value)


def test_empty_and_repeated(tmp_path: Path):
    path = tmp_path / "list.txt"
    path.write_text("\n \n")
    with pytest.raises(UserError, match="found an empty file"):
        read_list(path, THERE.__contains__)
    path.write_text("a\nb\n/JPEGImages/a.jpg\n")
    with pytest.raises(UserError, match="found a twice"):
        read_list(path, THERE.__contains__)


def test_an_image_id_is_a_path_without_suffix():
    assert image_id("a.b.tif") == "a.b" and image_id("a.b") == "a.b"
    assert image_id("JPEGImages/JPEGImages/a.bmp") == "a"
    assert image_id(".jpg") == ".jpg"
