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
    ("content", "found"),
    [
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
