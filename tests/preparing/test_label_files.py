"""Labels in tables, spreadsheets and exports of other programs become those of a data set."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.preparing.results import A_TO_D, EXPECTED, Prepare, ids, labels
from tests.preparing.sources import photographs

TABLES = {
    "semicolons, a mark, CRLF and capitals": (
        b"\xef\xbb\xbfImage_ID;Label\r\nA.JPG;CAT\r\nb;Cat, Dog\r\nc c.png;dog\r\nsub/d;\r\n"
    ),
    "a row per object": b"filename,width,class,xmin\na.jpg,2,Cat,1\nb.jpg,2,Cat,1\n"
    b"b.jpg,2,Dog,1\nc c.png,2,Dog,3\nd.JPG,2,,\n",
    "bars in a cell": (
        b"file,labels\n/home/me/a.jpg,Cat\nphotos\\sub\\b.jpg,Cat|Dog\nc c,Dog\nd,none\n"
    ),
    "one-hot": b"image,Cat,Dog\na,1,0\nb,1,1\nc c,0,1\nd,0,0\n",
    "one-hot of words and a row per object": (
        b"path,Cat,Dog\na,yes,\nb,yes,\nb,,yes\nc c,,yes\nd,,\n"
    ),
    "pandas with an index": (
        b",image_id,labels\n0,a,\"['Cat']\"\n1,b,\"['Cat', 'Dog']\"\n2,c c,['Dog']\n3,d,[]\n"
    ),
    "no header": b"a.jpg,Cat\nsub/b.jpg,Cat,Dog\nc c.png,Dog\nsub/d.JPG,\n",
    "a line for Excel": b"sep=;\nImage;Class\na;Cat\nb;Cat,Dog\nc c;Dog\nd;\n",
    "tabs": b"photo\tcategory\na\tCat\nb\tCat;Dog\nc c\tDog\nd\t\n",
}


@pytest.mark.parametrize("form", TABLES)
def test_tables(form: str, prepare: Prepare, tmp_path: Path):
    photographs(tmp_path / "photos", *A_TO_D)
    (tmp_path / "photos/table.csv").write_bytes(TABLES[form])
    prepare("--val=0")
    found = {
        name: {one.capitalize() for one in row} for name, row in labels(tmp_path / "out").items()
    }
    assert found == EXPECTED


def test_a_spreadsheet(prepare: Prepare, tmp_path: Path):
    import openpyxl

    photographs(tmp_path / "photos", "007.jpg", "8.jpg")
    book = openpyxl.Workbook()
    assert book.active is not None
    for row in (("Photo", "Species"), (7, "Crack"), (8.0, "Moss; Crack")):
        book.active.append(row)
    book.create_sheet("Notes").append(("nothing",))
    book.save(tmp_path / "labels.xlsx")
    told = prepare("--val=0", f"--labels={tmp_path / 'labels.xlsx'}")
    assert labels(tmp_path / "out") == {"007": {"Crack"}, "8": {"Crack", "Moss"}}
    assert "the sheet 'Sheet' is read, not Notes" in told and "by number (7)" in told


def test_a_spreadsheet_without_its_reader(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    photographs(tmp_path / "photos", "1.jpg", "2.jpg")
    (tmp_path / "photos/labels.xlsx").write_bytes(b"PK\x03\x04 and no more")
    assert "expected a spreadsheet in" in prepare(status=2)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    assert "found none: pip install openpyxl, or save the" in prepare(status=2)


COCO = {
    "images": [{"id": n, "file_name": name} for n, name in enumerate(A_TO_D)],
    "categories": [
        {"id": 0, "name": "animals"},
        {"id": 1, "name": "Cat"},
        {"id": 4, "name": "Dog"},
    ],
    "annotations": [
        {"image_id": i, "category_id": c} for i, c in ((0, 1), (1, 1), (1, 4), (1, 4), (2, 4))
    ],
}


STUDIO = [
    {
        "data": {"image": url},
        "annotations": [{"result": [{"value": {kind: names}} for names in all_names]}],
    }
    for url, kind, all_names in (
        ("/data/upload/1/0a1b2c3d-a.jpg", "choices", [["Cat"]]),
        ("/data/local-files/?d=photos/sub/b.jpg", "polygonlabels", [["Cat"], ["Dog"]]),
        ("/data/upload/1/0a1b2c3d-c%20c.png", "rectanglelabels", [["Dog"]]),
        ("s3://bucket/sub/d.JPG", "brushlabels", []),
    )
]


CVAT = """<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>
<meta><task><labels><label><name>Bird</name></label></labels></task></meta>
<image id="0" name="a.jpg" width="20" height="12"><box label="Cat" xtl="0"/></image>
<image id="1" name="sub/b.jpg"><polygon label="Dog" points=""/><tag label="Cat"/></image>
<image id="2" name="c c.png"><mask label="Dog" rle=""/></image>
<image id="3" name="sub/d.JPG"/></annotations>"""


EXPORTS = {
    "COCO": ("sub/_annotations.coco.json", json.dumps(COCO)),
    "Label Studio": ("project-1.json", json.dumps(STUDIO)),
    "CVAT": ("annotations.xml", CVAT),
    "a dictionary": (
        "x.json", json.dumps({"a": "Cat", "b": ["Cat", "Dog"], "c c": ["Dog"], "d": []}),
    ),
    "records": (
        "x.json",
        json.dumps(
            [
                {"image": "a.jpg", "label": "Cat"},
                {"image": "b.jpg", "label": [{"rectanglelabels": ["Cat"]}, {"labels": ["Dog"]}]},
                {"image": "c c.png", "choice": {"choices": ["Dog"]}},
                {"image": "d.JPG", "label": []},
            ]
        ),
    ),
    "a record per line": (
        "metadata.jsonl",
        '{"file_name": "a.jpg", "label": "Cat"}\n{"file_name": "b.jpg", "label": "Cat;Dog"}\n'
        '{"file_name": "c c.png", "label": "Dog"}\n{"file_name": "d.JPG", "label": null}\n',
    ),
}  # fmt: skip


@pytest.mark.parametrize("program", EXPORTS)
def test_exports(program: str, prepare: Prepare, tmp_path: Path):
    photographs(tmp_path / "photos", *A_TO_D)
    name, text = EXPORTS[program]
    (tmp_path / "photos" / name).write_text(text)
    prepare("--val=0")
    assert labels(tmp_path / "out") == EXPECTED
    assert (tmp_path / "out/classes.txt").read_text() == "Cat\nDog\n"


@pytest.mark.parametrize("program", ("PASCAL VOC", "labelme"))
def test_exports_of_a_file_per_image(program: str, prepare: Prepare, tmp_path: Path):
    photographs(tmp_path / "photos", *A_TO_D)
    for name, row in EXPECTED.items():
        path = tmp_path / "labels" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if program == "labelme":
            shapes = [{"label": one, "points": []} for one in sorted(row)]
            content = {"version": "5.0", "shapes": shapes, "imagePath": f"..\\{name}.jpg"}
            (path.parent / f"{path.name}.json").write_text(json.dumps(content))
        else:
            objects = "".join(
                f"<object><name>{one}</name><part><name>head</name></part></object>" for one in row
            )
            # The name inside is stale, as after renaming.
            text = f"<annotation><filename>old.jpg</filename>{objects}</annotation>"
            (path.parent / f"{path.name}.xml").write_text(text)
    prepare("--val=0", f"--labels={tmp_path / 'labels'}")
    assert labels(tmp_path / "out") == EXPECTED


def test_roboflow_has_a_table_and_a_folder_for_each_split(prepare: Prepare, tmp_path: Path):
    for folder, name, row in (("train", "x", "Cat"), ("train", "y", "Dog"), ("valid", "x", "Dog")):
        photographs(tmp_path / "photos", f"{folder}/{name}_jpg.rf.0a.jpg")
        path = tmp_path / "photos" / folder / "_annotations.csv"
        old = path.read_text() if path.exists() else "filename,width,height,class,xmin\n"
        path.write_text(f"{old}{name}_jpg.rf.0a.jpg,20,12,{row},1\n")
    prepare()
    out = tmp_path / "out"
    assert ids(out, "train") == ["train/x_jpg.rf.0a", "train/y_jpg.rf.0a"]
    assert labels(out)["valid/x_jpg.rf.0a"] == {"Dog"} and ids(out, "val") == ["valid/x_jpg.rf.0a"]


def test_several_kinds_of_labels_are_refused(prepare: Prepare, tmp_path: Path):
    folder = photographs(tmp_path / "photos", "a.jpg", "b.jpg")
    (folder / "labels.csv").write_text("file,label\na,Cat\nb,Dog\n")
    (folder / "a.xml").write_text("<annotation><object><name>Dog</name></object></annotation>")
    assert "found 2 (PASCAL VOC: a.xml; table labels.csv: labels.csv)" in prepare(status=2)
    prepare(f"--labels={folder / 'labels.csv'}")


def test_files_of_another_form(prepare: Prepare, tmp_path: Path):
    folder = photographs(tmp_path / "photos", "Cat/a.jpg", "Dog/b.jpg")
    (folder / "settings.json").write_text('{"version": 1}')
    assert "found another form: COCO," in prepare(f"--labels={folder / 'settings.json'}", status=2)
    prepare("--val=0")  # It has no labels, so names of folders count.
    assert labels(tmp_path / "out") == {"Cat/a": {"Cat"}, "Dog/b": {"Dog"}}


def test_an_export_of_label_studio_without_images_is_refused(prepare: Prepare, tmp_path: Path):
    photographs(tmp_path / "photos", "a.jpg", "b.jpg")
    export = [{**STUDIO[0], "data": {"number": 3}, "id": 7}]
    (tmp_path / "photos" / "project.json").write_text(json.dumps(export))
    assert "no image in the data of task 7" in prepare(status=2)


@pytest.mark.parametrize(
    ("text", "told"),
    (
        ("photo,place,animal\na,north,Cat\nb,south,Dog\n", "name it with --label_column"),
        ("image,label\na,none\nb,background\n", "labels, and no class in any of them"),
        ("", "found no rows"),
        ("image,Cat,Dog\na,2,0\nb,0,3\n", "expected a column of classes"),
    ),
)
def test_tables_that_are_refused(text: str, told: str, prepare: Prepare, tmp_path: Path):
    folder = photographs(tmp_path / "photos", "a.jpg", "b.jpg")
    (folder / "labels.csv").write_text(text)
    assert told in prepare(status=2) and not (tmp_path / "out").exists()


def test_the_named_column_and_encodings(prepare: Prepare, tmp_path: Path):
    folder = photographs(tmp_path / "photos", "ä.jpg", "b.jpg")
    text = "Bild;Ort;Käse\r\nä.jpg;Süd;Brie\r\nb;Süd;Edamer|Brie\r\n"
    for encoding in ("latin-1", "utf-16"):
        (folder / "labels.csv").write_bytes(text.encode(encoding))
        prepare("--label_column=Käse", "--val=0")
        assert labels(tmp_path / "out") == {"ä": {"Brie"}, "b": {"Brie", "Edamer"}}
        shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize("cell", ["2", "?", "maybe"])
def test_an_odd_cell_among_zeros_and_ones_is_refused(tmp_path: Path, prepare: Prepare, cell: str):
    photographs(tmp_path / "photos", *A_TO_D)
    rows = f"File Name;Cat;Dog\na;1;0\nb;1;1\nc c;0;1\nd;{cell};0\n"
    (tmp_path / "photos/labels.csv").write_text(rows)
    told = prepare(status=2)
    assert (
        f"in the column 'Cat' of {tmp_path / 'photos/labels.csv'}, found {cell!r} in row 5" in told
    )
    # Columns that are no classes may hold anything.
    more = "image;class;difficult;truncated\na;Cat;0;0\nb;Cat|Dog;2;0\nc c;Dog;0;1\nd;;0;0\n"
    (tmp_path / "photos/labels.csv").write_text(more)
    prepare("--unlabeled=background")
    assert labels(tmp_path / "out") == EXPECTED


@pytest.mark.parametrize("depth", [900, 5_000, 100_000])
def test_names_in_lists_in_lists_are_one_line(depth: int, prepare: Prepare, tmp_path: Path):
    photographs(tmp_path / "photos", "a.jpg", "b.jpg")
    labels = tmp_path / "photos" / "labels.json"
    labels.write_text('{"a.jpg": ' + "[" * depth + '"cat"' + "]" * depth + "}")
    assert "expected labels" in prepare(status=2)


def test_a_table_without_photographs(prepare: Prepare, tmp_path: Path):
    folder = photographs(tmp_path / "photos", "a.jpg", "b.jpg")
    (folder / "labels.csv").write_text("class,remark\nCat,x\nDog,y\n")
    told = prepare(status=2)
    assert "expected a column that names photographs in" in told
    assert "found class, remark, where no cell is the name of one" in told
