"""Names of classes from a file."""

from pathlib import Path

import pytest

from wsss_jax.data.class_names import VOC_CLASSES, read_classes
from wsss_jax.errors import UserError


def test_vocs_names():
    assert read_classes("voc") == VOC_CLASSES
    assert len(VOC_CLASSES) == 20 and VOC_CLASSES[14] == "person"


@pytest.mark.parametrize("text", ["crack\nrust\n", "\ufeffbackground\r\ncrack\r\n\r\n rust"])
def test_a_file_of_names(tmp_path: Path, text: str):
    path = tmp_path / "names.txt"
    path.write_bytes(text.encode())
    assert read_classes(str(path)) == ("crack", "rust")


@pytest.mark.parametrize(
    "text",
    [
        "_background_\ncrack\nrust\n",  # labelme
        "__ignore__\n_background_\ncrack\nrust\n",
        "__background__\ncrack\nrust\n",  # Detectron and torchvision
        "BACKGROUND\ncrack\nrust\n",
        "Back Ground\ncrack\nrust\n",
        "bg\ncrack\nrust\n",
        "0 background\n1 crack\n2 rust\n",
        "0: background\n1: crack\n2: rust\n",
        "1,crack\n2,rust\n",
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncrack:128,0,0::\nrust:0,128,0::\n",
    ],
)
def test_the_background_of_other_programs_is_no_class(tmp_path: Path, text: str):
    path = tmp_path / "names.txt"
    path.write_text(text)
    assert read_classes(str(path)) == ("crack", "rust")


@pytest.mark.parametrize(
    "names",
    [("1 euro", "2 euro"), ("2 doors", "4 wheels"), ("a:b", "c:d"), ("1" * 5000 + " a", "2 b")],
)
def test_names_may_have_numbers_and_colons(tmp_path: Path, names: tuple[str, ...]):
    path = tmp_path / "names.txt"
    path.write_text("\n".join(names))
    assert read_classes(str(path)) == names


def test_names_in_other_encodings(tmp_path: Path):
    path = tmp_path / "names.txt"
    for encoding in ("utf-16", "cp1252"):
        path.write_bytes("Mäusegerste\nHafer\n".encode(encoding))
        assert read_classes(str(path)) == ("Mäusegerste", "Hafer")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"crack\n__background__\n", "found '__background__' behind it: its mask index is 0"),
        (b"background\ncrack\nvoid\n", "found 'void', which is none"),
        (b"background\n__ignore__\ncrack\n", "found '__ignore__', which is none"),
        (b"0: crack\n1: rust\n", r"found '0: crack' in the first line"),
        ("裂缝\n".encode("gb18030"), "found another encoding: save the text as UTF-8"),
        (b"", "found 0 names"),
        (b"background\n", "found 0 names"),
        (b"crack\nrust\ncrack\n", "found 'crack' more than once"),
        ("".join(f"{index}\n" for index in range(255)).encode(), "found 255 names"),
        (b"\xff\xfe\x00", "found no text"),
        (None, "found No such file"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, content: bytes | None, found: str):
    path = tmp_path / "names.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_classes(str(path))
    assert str(path) in str(caught.value) and found in str(caught.value)


def test_many_lines_are_refused_at_once(tmp_path: Path):
    path = tmp_path / "classes.txt"
    path.write_text("\n".join(f"name{i}" for i in range(200_000)))
    with pytest.raises(UserError, match="found 200000 names"):
        read_classes(str(path))
