"""Tables of labels, as spreadsheets, pandas and programs for labeling write them."""

from pathlib import Path

import numpy as np
import pytest

from wsss_jax.data.labels import read_annotations, read_label_file, select
from wsss_jax.errors import UserError

CLASSES = ("Rust", "apple scab", "dog")


def read(folder: Path, text: str, name: str = "labels.csv", encoding: str = "utf-8") -> dict:
    (folder / name).write_bytes(text.encode(encoding))
    labels = read_label_file(folder / name, CLASSES)
    return {one: {CLASSES[k] for k in np.flatnonzero(label)} for one, label in labels.items()}


RIGHT = {"a": {"Rust"}, "b": {"apple scab", "dog"}, "c": set()}
ONE_HOT = "a,1,0,0\nb,0,1,1\nc,0,0,0\n"


@pytest.mark.parametrize(
    "text",
    [
        # one row per object: joined
        "id,Rust,apple scab,dog\na,1,0,0\nb,0,1,0\nb,0,0,1\nc,0,0,0\n",
        "a,Rust\nb,dog\nb,apple scab\nc\n",
        # names of other case, and of ids
        "id,rust,Apple Scab,DOG\n" + ONE_HOT,
        "image_id,rust,apple_scab,dog\n" + ONE_HOT,
        "filename,rust,apple-scab,dog\n" + ONE_HOT.replace("a,", "a.jpg,", 1),
        "Image,rust,applescab,dog\n" + ONE_HOT,
        "Bild,rust,apple scab,dog\n" + ONE_HOT,
        "id,background,rust,apple scab,dog\na,1,1,0,0\nb,0,0,1,1\nc,1,0,0,0\n",
        # cells of pandas and of spreadsheets
        "id,Rust,apple scab,dog\na,True,False,False\nb,FALSE,TRUE,TRUE\nc,False,False,False\n",
        "id,Rust,apple scab,dog\na,1,,\nb,,1,1\nc,,,\n",
        "id,Rust,apple scab,dog\na,1.0,0.0,0.0\nb,0.0,1.0,1.0\nc,0.0,0.0,0.0\n",
        ",id,Rust,apple scab,dog\n0,a,1,0,0\n1,b,0,1,1\n2,c,0,0,0\n",
        ",Rust,apple scab,dog\n" + ONE_HOT,
        "Unnamed: 0,image,label\n0,a,Rust\n1,b,dog\n2,b,apple scab\n3,c,\n",
        # delimiters
        "a;Rust\nb;dog;apple scab\nc;\n",
        "a\tRust\nb\tdog\tapple scab\nc\t\n",
        "a|Rust\nb|dog|apple scab\nc|\n",
        "\ufeffid;Rust;apple scab;dog\r\n" + ONE_HOT.replace(",", ";").replace("\n", "\r\n"),
        '"a","Rust"\n"b","dog,apple scab"\n"c",""\n',
        # several classes in a cell
        "image,labels\na,Rust\nb,dog;apple scab\nc,\n",
        "image;labels\na;Rust\nb;dog, apple scab\nc;\n",
        "image,labels\na,Rust\nb,Dog|APPLE SCAB\nc,\n",
        "image,labels\na,\"['Rust']\"\nb,\"['dog', 'apple scab']\"\nc,[]\n",
        # the detection tables of TensorFlow's and of torchvision's examples
        "filename,width,height,class,xmin\na.jpg,9,9,rust,1\nb.jpg,9,9,dog,2\n"
        "b.jpg,9,9,apple scab,3\nc.jpg,9,9,,\n",
        # mask indices
        "a,1\nb,2,3\nc\n",
        "id,class\na,1.0\nb,2.0\nb,3.0\nc,\n",
        # ids as files
        "JPEGImages/a.jpg,Rust\n/JPEGImages/b.png,dog,apple scab\nc.webp\n",
    ],
)
def test_every_form_is_read_as_it_is_meant(tmp_path: Path, text: str):
    assert read(tmp_path, text) == RIGHT


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_of_excel(tmp_path: Path, encoding: str):
    text = "id\tclass\r\na\trust\r\nb\tdog;apple scab\r\nc\t\r\n"
    assert read(tmp_path, text, "labels.tsv", encoding) == RIGHT


def test_names_that_differ_in_case_are_different_classes(tmp_path: Path):
    path = tmp_path / "labels.csv"
    path.write_text("a,Rust\nb,rust\n")
    labels = read_label_file(path, ("rust", "Rust"))
    assert labels["a"].tolist() == [0, 1] and labels["b"].tolist() == [1, 0]
    path.write_text("a,RUST\n")
    with pytest.raises(UserError, match="'RUST'"):
        read_label_file(path, ("rust", "Rust"))


def test_ids_may_have_blanks_and_folders(tmp_path: Path):
    assert read(tmp_path, "scan 2,dog\ncam2/a1.jpg,Rust\ncam2\\a2.JPG,dog\n") == {
        "scan 2": {"dog"},
        "cam2/a1": {"Rust"},
        "cam2/a2": {"dog"},
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        # A 1 below the name of no class was read as the index of the first class.
        ("id,Foo,Bar\na,1,0\nb,,1\n", "columns with the names of the classes .* found Foo, Bar"),
        ("id,diagnosis\na,1\nb,0\n", "found diagnosis"),
        ("id,Rust,apple scab,dgo\n" + ONE_HOT, r"\(dgo, dog\).*did you mean dog\?"),
        ("id,Rust,apple scab,dog\na,3,0,0\n", r"other values for a in .*'3'"),
        ("id,Rust,apple scab,dog\na,-1,0,0\n", "other values for a"),
        ("a,Dgo\nb,dog\nc,Scab,xyz\n", r"'Dgo' for a, 'Scab' for c, 'xyz' for c .* mean dog\?"),
        ("a,4\n", "found '4' for a"),
        (f"a,{'9' * 5000}\n", "found '999"),
        ("a,²\n", "found '²' for a"),
        ("../a,dog\n", "row 1 .*below JPEGImages"),
        (",dog\n", "row 1 of .*found ''"),
    ],
)
def test_what_is_ambiguous_is_refused(tmp_path: Path, text: str, found: str):
    with pytest.raises(UserError, match=found) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value) and "labels.csv" in str(caught.value)


def test_spreadsheets_are_to_be_saved_as_text(tmp_path: Path):
    (tmp_path / "labels.xlsx").write_bytes(b"PK\3\4")
    with pytest.raises(UserError, match=r"found a \.xlsx file .*save the spreadsheet as CSV"):
        read_label_file(tmp_path / "labels.xlsx", CLASSES)


def test_numbers_are_ids_of_coco(tmp_path: Path):
    label = np.array([1, 0, 0], np.float32)
    for name in ("000000000009", "COCO_train2014_000000000009"):
        assert select({"9": label}, [name], Path("f")).tolist() == [[1, 0, 0]]
    with pytest.raises(UserError, match="found none for 1"):
        select({"9": label}, ["0009"], Path("f"))
    with pytest.raises(UserError, match="found none for 1"):
        select({"9": label}, ["000000000010"], Path("f"))


def annotation(folder: Path, inner: str, encoding: str = "utf-8", root: str = "annotation") -> dict:
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n<{root}>{inner}</{root}>'
    (folder / "a.xml").write_bytes(text.encode(encoding))
    labels = read_annotations(folder, ["a"], CLASSES)
    return {name: np.flatnonzero(label).tolist() for name, label in labels.items()}


@pytest.mark.parametrize("encoding", ["utf-8", "gb2312", "gbk", "shift_jis", "utf-16", "latin-1"])
def test_annotations_in_any_encoding(tmp_path: Path, encoding: str):
    folder = "" if encoding == "latin-1" else "<folder>" + "日本" + "</folder>"
    inner = folder + "<object><name> DOG\n</name></object><object><name>rust</name></object>"
    assert annotation(tmp_path, inner, encoding) == {"a": [0, 2]}


@pytest.mark.parametrize(
    ("inner", "root", "found"),
    [
        ("<object><name>dog</name></object><object></object>", "annotation", "none in object 2"),
        ("<object><name> </name></object>", "annotation", "expected a name in every object"),
        ("<object><label>dog</label></object>", "annotation", "expected a name"),
        ("<image/>", "annotations", "found <annotations> in place of <annotation>"),
        ("<object><name>Dgo</name></object>", "annotation", r"'Dgo' for a .*did you mean dog\?"),
    ],
)
def test_wrong_annotations_are_no_negatives(tmp_path: Path, inner: str, root: str, found: str):
    with pytest.raises(UserError, match=found) as caught:
        annotation(tmp_path, inner, root=root)
    assert str(tmp_path / "a.xml") in str(caught.value)


@pytest.mark.parametrize("encoding", ["klingon", "gb2312", "utf-8"])
def test_undecodable_annotations_are_named(tmp_path: Path, encoding: str):
    head = f'<?xml version="1.0" encoding="{encoding}"?>'.encode()
    (tmp_path / "a.xml").write_bytes(head + b"<annotation>\xff\xff\xff</annotation>")
    with pytest.raises(UserError, match=r"a\.xml, found no XML"):
        read_annotations(tmp_path, ["a"], CLASSES)
