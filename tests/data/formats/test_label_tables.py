"""Tables of labels, as spreadsheets, pandas and programs for labeling write them."""

from pathlib import Path

import numpy as np
import pytest

from wsss_jax.data.formats.label_tables import table_classes
from wsss_jax.data.labels import names_an_image, read_annotations, read_label_file, select
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


def test_classes_may_be_called_like_other_columns(tmp_path: Path):
    (tmp_path / "labels.csv").write_text("id,size,x\na,1,0\nb,0,1\n")
    labels = read_label_file(tmp_path / "labels.csv", ("size", "x"))
    assert labels["a"].tolist() == [1, 0] and labels["b"].tolist() == [0, 1]


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
        (
            "id,Rust,apple scab,dog\na,3,0,0\n",
            r"expected 0 or 1 .*'Rust' .*found '3' in row 2 \(a\)",
        ),
        ("id,Rust,apple scab,dog\na,-1,0,0\n", r"found '-1' in row 2 \(a\)"),
        ("a,Dgo\nb,dog\nc,Scab,xyz\n", r"'Dgo' for a, 'Scab' for c, 'xyz' for c .* mean dog\?"),
        ("a,4\n", "found '4' for a"),
        (f"a,{'9' * 5000}\n", "found '999"),
        ("a,²\n", "found '²' for a"),
        ("../a,dog\n", "row 1 .*expected the name of an image, .*found '../a'"),
        (",dog\n", "row 1 of .*found ''"),
    ],
)
def test_what_is_ambiguous_is_refused(tmp_path: Path, text: str, found: str):
    with pytest.raises(UserError, match=found) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value) and "labels.csv" in str(caught.value)


def test_spreadsheets_of_other_programs_are_to_be_saved_as_text(tmp_path: Path):
    for suffix in (".xls", ".ods"):
        (tmp_path / f"labels{suffix}").write_bytes(b"PK\3\4")
        told = rf"found a \{suffix} file .*save the spreadsheet as \.xlsx or \.csv"
        with pytest.raises(UserError, match=told):
            read_label_file(tmp_path / f"labels{suffix}", CLASSES)


def test_a_spreadsheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    import openpyxl

    book = openpyxl.Workbook()
    assert book.active is not None
    for row in (("Bild", "Klasse"), ("a", "RUST"), ("b", "dog; apple scab"), ("c", None)):
        book.active.append((*row, "Notiz"))
    book.create_sheet("Notes").append(("nothing",))
    book.save(tmp_path / "labels.xlsx")
    labels = read_label_file(tmp_path / "labels.xlsx", CLASSES, names_an_image(["a", "b", "c"]))
    found = {name: {CLASSES[k] for k in np.flatnonzero(label)} for name, label in labels.items()}
    assert found == RIGHT
    told = capsys.readouterr().err
    assert "labels.xlsx: the sheet 'Sheet' is read, not Notes, column 'Notiz'" in told
    (tmp_path / "labels.xlsx").write_bytes(b"PK\3\4")
    with pytest.raises(UserError, match=r"expected a spreadsheet in .*save it as CSV"):
        read_label_file(tmp_path / "labels.xlsx", CLASSES)


@pytest.mark.parametrize(
    "text",
    [
        # what `prepare` reads, too
        "sep=;\nimage;class\na;Rust\nb;dog;apple scab\nc;\n",
        "image,class\na,Rust\nb,Dog and Apple Scab\nc,none\n",
        "image,Rust,apple scab,dog\na,yes,no,no\nb,no,x,y\nc,n,,\n",
        "Nr;Bild;Klasse;Notiz\n1;a;rust;schön\n2;b;dog|apple scab;\n3;c;;\n",
        "A.JPG,Rust\nB,dog\nb.png,Apple Scab\nfolder/C,\n",
        "Bild,Krankheit\na,Rust\nb,dog;apple scab\nc,\n",
        "id,first,second\na,Rust,\nb,dog,apple scab\nc,,\n",
        'image,class\na,Rust\nb,"dog\napple scab"\nc,\n',
    ],
)
def test_tables_for_known_images(tmp_path: Path, text: str):
    path, ids = tmp_path / "labels.csv", ["a", "b", "c"]
    path.write_text(text)
    labels = read_label_file(path, CLASSES, names_an_image(ids))
    rows = select(labels, ids, path)
    found = {n: {CLASSES[k] for k in np.flatnonzero(row)} for n, row in zip(ids, rows, strict=True)}
    assert found == RIGHT


def test_numbers_are_ids(tmp_path: Path):
    label = np.array([1, 0, 0], np.float32)
    for name in ("000000000009", "COCO_train2014_000000000009", "0009"):
        assert select({"9": label}, [name], Path("f")).tolist() == [[1, 0, 0]]
    with pytest.raises(UserError, match="found '9', which may be 0009 or 09"):
        select({"9": label}, ["0009", "09"], Path("f"))
    with pytest.raises(UserError, match="found none for 1"):
        select({"9": label}, ["000000000010"], Path("f"))


def test_ids_of_another_case(tmp_path: Path):
    cat, dog = np.eye(2, dtype=np.float32)
    found = select({"IMG_1": cat, "img_1": dog, "IMG_2": cat}, ["img_1", "img_2"], Path("f"))
    assert found.tolist() == [[1, 1], [1, 0]]
    # Names that differ in case alone are two images.
    found = select({"A": cat, "a": dog}, ["A", "a"], Path("f"))
    assert found.tolist() == [[1, 0], [0, 1]]
    with pytest.raises(UserError, match="which may be Img_1 or img_1"):
        select({"IMG_1": cat}, ["img_1", "Img_1"], Path("f"))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["dog"] * 40 + ["dgo"], r"found 'dgo' only for 40.jpg; did you mean dog\?"),
        (["dog"] * 20 + ["cat"] * 20 + ["a bit blurry"], "found 'a bit blurry' only for 40.jpg"),
        (["dog"] * 4 + ["?"], r"found '\?' for 4.jpg: write them, or remove the row"),
        (["dog", "cat", "Unknown"], "found 'Unknown' for 2.jpg"),
    ],
)
def test_names_that_are_hardly_classes(tmp_path: Path, rows: list[str], told: str):
    path = tmp_path / "labels.csv"
    path.write_text("".join(f"{number}.jpg,{name}\n" for number, name in enumerate(rows)))
    with pytest.raises(UserError, match=told) as caught:
        table_classes(path)
    assert "\n" not in str(caught.value)


def test_several_classes_in_a_name(tmp_path: Path):
    path = tmp_path / "labels.csv"
    path.write_text("a.jpg,cat\nb.jpg,dog\nc.jpg,Cat and Dog\nd.jpg,cat & dog\ne.jpg,cat/dog\n")
    assert table_classes(path) == ("cat", "dog")
    path.write_text("a.jpg,salt and pepper\nb.jpg,salt\n")
    assert table_classes(path) == ("salt", "salt and pepper")


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


def test_advice_fits_the_command(tmp_path: Path):
    """A recipe has no option for the column of classes."""
    (tmp_path / "t.csv").write_text("photo,place,animal\na.jpg,north,Cat\nb.jpg,south,Dog\n")
    with pytest.raises(
        UserError, match=r"NAME of `python -m wsss_jax.prepare folder`, which makes"
    ):
        table_classes(tmp_path / "t.csv", names_an_image(["a", "b"]))
