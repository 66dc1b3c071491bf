"""Image-level labels from files, annotations and masks."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wsss_jax.data.class_names import VOC_CLASSES
from wsss_jax.data.labels import mask_label, match, read_annotations, read_label_file, select
from wsss_jax.data.masks import decode_mask
from wsss_jax.errors import UserError

CLASSES = ("cat", "dog", "potted plant")
EXPECTED = {"2007_000032": [1, 0, 0], "b": [0, 1, 1], "c": [0, 0, 0]}


def _vectors() -> dict[str, np.ndarray]:
    return {name: np.array(label, np.float32) for name, label in EXPECTED.items()}


def _save_dictionary(path: Path, content: object) -> Path:
    np.save(path, np.array(content, dtype=object), allow_pickle=True)
    return path


def _save_text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def _files(folder: Path) -> dict[str, Path]:
    """The same labels in every form."""
    vectors = _vectors()
    np.savez(folder / "pairs.npz", allow_pickle=False, **vectors)
    np.savez(
        folder / "table.npz", ids=np.array(list(vectors)), labels=np.stack(list(vectors.values()))
    )
    lists = {name: list(label) for name, label in EXPECTED.items()}
    return {
        "npy": _save_dictionary(folder / "a.npy", vectors),
        "npy of lists": _save_dictionary(folder / "b.npy", lists),
        "npz of vectors": folder / "pairs.npz",
        "npz table": folder / "table.npz",
        "csv of names": _save_text(
            folder / "names.csv", "2007_000032,cat\nb, dog ,potted plant\nc\n"
        ),
        "csv of indices": _save_text(
            folder / "indices.csv", "id,class\n2007_000032,1,\nb,2\n\nb,3\nc,\n"
        ),
        "csv multi-hot": _save_text(
            folder / "hot.CSV",
            "\ufeffid,dog,cat,potted plant\n2007_000032,0,1,0\nb,1,0,1\nc,0,0,0\n",
        ),
    }


def test_every_form_gives_the_same_labels(tmp_path: Path) -> None:
    for form, path in _files(tmp_path).items():
        labels = read_label_file(path, CLASSES)
        assert {name: label.tolist() for name, label in labels.items()} == EXPECTED, form
        assert all(label.dtype == np.float32 for label in labels.values()), form


def test_integer_ids_become_those_of_voc(tmp_path: Path) -> None:
    vectors = {2007000032: [1.0, 0, 0], 7: [0, 1.0, 0]}
    assert set(read_label_file(_save_dictionary(tmp_path / "a.npy", vectors), CLASSES)) == {
        "2007_000032",
        "7",
    }


class _Payload:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_a_pickle_is_never_executed(tmp_path: Path) -> None:
    target = tmp_path / "made by the pickle"
    path = tmp_path / "cls_labels.npy"
    _save_dictionary(path, {"a": _Payload(target)})
    with pytest.raises(UserError, match="mkdir"):
        read_label_file(path, CLASSES)
    assert not target.exists()
    np.savez(tmp_path / "a.npz", a=np.array([_Payload(target)], dtype=object))
    with pytest.raises(UserError, match="without pickles"):
        read_label_file(tmp_path / "a.npz", CLASSES)
    assert not target.exists()
    pickle.loads(pickle.dumps(_Payload(target)))
    assert target.exists(), "the payload works where pickles are executed"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "a,cat", r"\.csv, \.tsv, \.xlsx, \.npy or \.npz"),
        ("a.csv", "a,lion", "'lion'"),
        ("a.csv", "a;cat\nb;lion", "'lion' for b"),
        ("a.csv", "a,0", "0 is the background"),
        ("a.csv", "a,4", "index of 1 to 3"),
        ("a.csv", "id,cat,dog\na,1,0", r"\(potted plant\)"),
        ("a.csv", "id,cat,dog,potted plant,dog\na,1,0,0,0", "repeated"),
        ("a.csv", "id,cat,dog,potted plant\na,1,0", "4 cells in row 2"),
        ("a.csv", "id,cat,dog,potted plant\na,1,0,0.5", r"found '0.5' in row 2 \(a\)"),
        ("a.csv", "id,cat,dog,potted plant\na,1,0,maybe", r"found 'maybe' in row 2 \(a\)"),
        ("a.npz", "no archive", "arrays without pickles"),
        ("a.npy", "no array", "a.npy"),
    ],
)
def test_wrong_files_are_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_label_file(_save_text(tmp_path / name, text), CLASSES)
    assert "\n" not in str(caught.value)


def test_wrong_arrays_are_refused(tmp_path: Path) -> None:
    for label in (np.zeros(21), 3.0, np.array([2, 0, 0]), "cat"):
        with pytest.raises(UserError, match="expected 3 zeros and ones"):
            read_label_file(_save_dictionary(tmp_path / "a.npy", {"a": label}), CLASSES)
    np.save(tmp_path / "plain.npy", np.zeros((4, 3)))
    with pytest.raises(UserError, match="ids as well"):
        read_label_file(tmp_path / "plain.npy", CLASSES)
    np.savez(tmp_path / "a.npz", ids=np.array(["a", "b"]), labels=np.zeros((3, 3)))
    with pytest.raises(UserError, match=r"\(2,\) and \(3, 3\)"):
        read_label_file(tmp_path / "a.npz", CLASSES)
    with pytest.raises(UserError, match="no such file"):
        read_label_file(tmp_path / "absent.npy", CLASSES)


def test_select_orders_and_names_what_is_lacking() -> None:
    labels = _vectors()
    np.testing.assert_array_equal(
        select(labels, ["b", "2007_000032"], Path("f")), [[0, 1, 1], [1, 0, 0]]
    )
    ids = ["b", *(f"x{number}" for number in range(7))]
    with pytest.raises(UserError, match=r"8 listed ids.* 7 of them .*x0, x1, x2, x3, x4, \.\.\."):
        select(labels, ids, Path("f"))
    with pytest.raises(UserError, match=r"'b', which is not listed"):
        select({"b": labels["b"]}, ["a"], Path("f"))


ANNOTATION = """<annotation><filename>a.jpg</filename>
<object><name>dog</name><difficult>1</difficult></object>
<object><name>cat</name><part><name>head</name></part></object>
<object><name>cat</name></object></annotation>"""


def test_annotations_count_difficult_objects_and_no_parts(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(ANNOTATION)
    (tmp_path / "b.xml").write_text("<annotation></annotation>")
    labels = read_annotations(tmp_path, ["a", "b", "absent"], CLASSES)
    assert {name: label.tolist() for name, label in labels.items()} == {
        "a": [1, 1, 0],
        "b": [0, 0, 0],
    }


def test_wrong_annotations_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(ANNOTATION[:-20])
    with pytest.raises(UserError, match=r"a\.xml.*no XML"):
        read_annotations(tmp_path, ["a"], CLASSES)
    (tmp_path / "a.xml").write_text(ANNOTATION.replace("dog", "lion"))
    with pytest.raises(UserError, match=r"'lion' for a in .*a\.xml"):
        read_annotations(tmp_path, ["a"], CLASSES)


def test_mask_label() -> None:
    mask = np.array([[0, 255, 2], [3, 3, 7]], np.uint8)
    assert mask_label(mask, 3).tolist() == [0, 1, 1]
    assert mask_label(np.zeros((2, 2), np.uint8), 3).tolist() == [0, 0, 0]


def test_labels_of_the_field_agree_with_the_masks(shared: Path) -> None:
    labels = read_label_file(shared / "data/lists/cls_labels.npy", VOC_CLASSES)
    assert len(labels) == 12031
    devkit = shared / "data/voc_mini/VOCdevkit/VOC2012"
    paths = sorted((devkit / "SegmentationClass").glob("*.png"))[::20]
    assert len(paths) > 20
    for path in paths:
        mask = decode_mask(path.read_bytes(), str(path), 20)
        np.testing.assert_array_equal(labels[path.stem], mask_label(mask, 20))


def test_a_label_means_the_same_whatever_else_is_there() -> None:
    """Neither the split nor the other labels change which image a spelling means."""
    cat, dog = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    both = {"IMG1": cat, "img1": dog, "a/2": cat}
    for ids in (["img1"], ["img1", "x"], ["a/2", "img1"]):
        np.testing.assert_array_equal(match(both, ids, Path("f"))["img1"], [1, 1])
        # Where each is an image, each label is its own, also of an image of another split.
        np.testing.assert_array_equal(match(both, ids, Path("f"), lambda: ["IMG1"])["img1"], dog)
    unknown: list[str] = []
    found = match(
        {"b/1": dog, "a/1": cat, "img 2": cat}, ["b/1", "img_2"], Path("f"), unknown=unknown
    )
    assert list(found) == ["b/1"] and found["b/1"] is dog, "a/1 is no image here"
    assert unknown == ["a/1", "img 2"]
    assert match({"home/b/1": cat}, ["b/1"], Path("f"))["b/1"] is cat
    for ids in (["a/1", "b/1"], ["a/1"]):
        with pytest.raises(UserError, match="found '1', which may be a/1 or b/1: write its path"):
            match({"a/1": cat, "1": dog}, ids, Path("f"), lambda: ["a/1", "b/1"])


def test_rows_of_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    path = _save_text(tmp_path / "a.csv", "file,class\nx,cat\nX.jpg,dog\nx.jpg,dog\n")
    assert read_label_file(path, CLASSES)["x"].tolist() == [1, 1, 0]
    path = _save_text(tmp_path / "b.csv", "file,class\nx,cat\nx.jpg,dog\nx.png,cat\n")
    with pytest.raises(UserError, match=r"of the name x in .*, found 'x.jpg' and 'x.png': rename"):
        read_label_file(path, CLASSES)
