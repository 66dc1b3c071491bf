"""Folders of photographs and labels of many forms become data sets."""

import csv
import dataclasses
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.preparing.sources import photographs, picture, save
from wsss_jax.data import images
from wsss_jax.data.images import VOC_PALETTE, decode_image, decode_photograph
from wsss_jax.data.photographs import open_photographs
from wsss_jax.data.plain_folder import ids_below
from wsss_jax.data.sets.base import DataSettings
from wsss_jax.errors import UserError
from wsss_jax.pipeline import graph
from wsss_jax.pipeline.config import read_recipe
from wsss_jax.prepare import _COMMANDS, _fitting, main
from wsss_jax.preparing.given_masks import GivenMask
from wsss_jax.stages.train import Train

Prepare = Callable[..., str]


@pytest.fixture
def prepare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Prepare:
    """Prepares `tmp_path/photos` as `tmp_path/out` and returns what is printed."""

    def run(*options: str, status: int = 0) -> str:
        arguments = ["folder", str(tmp_path / "photos"), "--out", str(tmp_path / "out")]
        assert main(["prepare.py", *arguments, *options]) == status
        captured = capsys.readouterr()
        return captured.out + captured.err if status == 0 else captured.err.splitlines()[-1]

    return run


def labels(out: Path) -> dict[str, set[str]]:
    """The labels that were written, by id."""
    with (out / "labels.csv").open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert head == ["id", "classes"]
    return {row[0]: set(row[1:]) for row in rows}


def ids(out: Path, split: str) -> list[str]:
    return (out / f"ImageSets/Segmentation/{split}.txt").read_text().splitlines()


A_TO_D = ("a.jpg", "sub/b.jpg", "c c.png", "sub/d.JPG")
EXPECTED = {"a": {"Cat"}, "sub/b": {"Cat", "Dog"}, "c c": {"Dog"}, "sub/d": set()}

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


def test_names_of_folders_and_patterns(prepare: Prepare, tmp_path: Path):
    photographs(tmp_path / "photos", "Cat/1.jpg", "cat/2/3.jpg", "big Dog/1.jpg")
    told = prepare("--val=0")
    assert labels(tmp_path / "out") == {
        "Cat/1": {"Cat"},
        "cat/2/3": {"Cat"},
        "big Dog/1": {"big Dog"},
    }
    assert "'cat' as 'Cat'" in told

    other = photographs(tmp_path / "other", "Cat_1_x.jpg", "s/Cat+Dog_2.jpg", "s/dog_7.PNG")
    arguments = ["prepare.py", "folder", str(other), f"--out={tmp_path / 'out2'}", "--val=0"]
    assert main([*arguments, "--pattern={class}_{}"]) == 0
    assert labels(tmp_path / "out2") == {
        "Cat_1_x": {"Cat"},
        "s/Cat+Dog_2": {"Cat+Dog"},
        "s/dog_7": {"dog"},
    }


def test_everything_wrong_is_in_one_message(prepare: Prepare, tmp_path: Path):
    folder = photographs(tmp_path / "photos", *(f"{n}.jpg" for n in range(9)), "x/0.jpg", "y/0.jpg")
    (folder / "3.jpg").write_bytes(b"nothing")
    rows = [f"{n}.jpg,Dog" for n in range(1, 8)] + [f"z{n}.jpg,Dog" for n in range(7)]
    (folder / "labels.csv").write_text("\n".join(["file,label", *rows, ",Dog"]))
    message = prepare(status=2)
    for part in (
        "photographs that cannot be read: 1 (3.jpg)",
        "photographs without a label: 4 (0.jpg, 8.jpg, x/0.jpg, y/0.jpg)",
        "labels without a photograph: 7 ('z0.jpg', row 9 of labels.csv",
        "'z4.jpg', row 13 of labels.csv, ...)",
        "rows that name no photograph: 1 (row 16 of labels.csv)",
    ):
        assert part in message
    assert message.startswith("error: ") and not (tmp_path / "out").exists()
    (folder / "labels.csv").write_text("\n".join(["file,label", *rows[:7], "0.jpg,Cat"]))
    assert "labels that fit several" not in prepare(status=2)  # 0.jpg lies at the top
    told = prepare("--skip_damaged", "--unlabeled=leave_out", "--val=0")
    assert "photographs that cannot be read are left out: 1 (3.jpg)" in told
    assert set(labels(tmp_path / "out")) == {"0", "1", "2", "4", "5", "6", "7"}


def test_a_name_of_several_photographs(prepare: Prepare, tmp_path: Path):
    folder = photographs(tmp_path / "photos", "x/0.jpg", "y/0.jpg")
    (folder / "labels.csv").write_text("file,label\n0.jpg,Dog\ny/0.jpg,Cat\n")
    assert (
        "labels that fit several photographs: 1 ('0.jpg', row 2 of labels.csv: x/0.jpg"
        in prepare(status=2)
    )


def test_labels_of_photographs_that_are_gone(prepare: Prepare, tmp_path: Path):
    """They are not merged with those of a photograph of the same name."""
    folder = photographs(tmp_path / "photos", "x/0.jpg", "y/1.jpg")
    (folder / "labels.csv").write_text("file,label\nx/0.jpg,Dog\nold/0.jpg,Cat\n1.png,Cat\n")
    told = prepare(status=2)
    assert "labels of different files that fit one photograph: 1 ('x/0.jpg' and" in told
    assert "'old/0.jpg', row 3 of labels.csv: x/0.jpg): add the other photograph" in told
    (folder / "labels.csv").write_text("file,label\nold/0.jpg,Dog\n1.png,Cat\n")
    told = prepare("--val=0", "--dry_run")
    assert "of other folders or formats: old/0.jpg as x/0.jpg, 1.png as y/1.jpg" in told


def test_photographs_of_a_phone(prepare: Prepare, tmp_path: Path):
    """HEIC is not read: left out like damaged files, or not needed beside a JPEG of its name."""
    folder = photographs(tmp_path / "photos", "a.jpg", "b.jpg", "c.jpg")
    for name in ("a.HEIC", "d.heic"):
        (folder / name).write_bytes(b"")
    (folder / "labels.csv").write_text("file,label\na.HEIC,Cat\nb,Dog\nc,Dog\nd.heic,Cat\n")
    (folder / "~$labels.xlsx").write_bytes(b"left by a program in which the table is open")
    told = prepare(status=2)
    assert "files in formats that are not read: 1 (d.heic): save it as JPEG or PNG (with" in told
    assert "magick mogrify -format jpg FILE), or leave them out with --skip_damaged" in told
    told = prepare("--skip_damaged", "--val=0")
    assert "files in formats that are not read are left out: 1 (d.heic)" in told
    assert "files beside photographs of the same name are not used: 1 (a.HEIC)" in told
    assert labels(tmp_path / "out") == {"a": {"Cat"}, "b": {"Dog"}, "c": {"Dog"}}
    (folder / "labels.csv").write_text("file,label\na.HEIC,Cat\nb,Dog\nc,Dog\n")
    assert "without a label" not in prepare(status=2)  # what is not read needs none
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (folder / name).write_bytes(b"")
    assert "found none among 4: replace them" in prepare("--skip_damaged", status=2)


def test_refusals_are_told_once_and_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = photographs(tmp_path / "photos", "a.jpg", "b.jpg", "c.jpg")
    (folder / "d.heic").write_bytes(b"")
    (folder / "labels.csv").write_text("file,label\na,Cat\nb,Dog\nd.heic,Cat\ne,Dog\n")
    assert main(["prepare.py", "folder", str(folder), "--dry_run"]) == 2
    said = capsys.readouterr()
    told = said.out + said.err
    for kind in ("files in formats that are not read: 1", "photographs without a label: 1"):
        assert told.count(kind) == 1 and kind in said.err
    assert "photographs  2" in said.out and said.err.splitlines()[-1].startswith("error: expected")
    assert said.err.count("error: ") == 1


def test_results_are_no_photographs(prepare: Prepare, tmp_path: Path):
    """Those of any command that were written below the photographs."""
    folder = photographs(tmp_path / "photos", "Cat/a.jpg", "Dog/b.jpg", "Dog/masks/c.jpg")
    photographs(
        folder,
        *("runs/mine/walk/masks/Cat/a.png", "runs/mine/report.png"),
        *("Dog/result/masks/b.png", "Dog/result/overlays/b.jpg", "old/JPEGImages/Cat/a.jpg"),
    )
    records = ("runs/mine/walk/_START.json", "runs/mine/report.html", "old/prepared.json")
    for name in (*records, "Dog/result/predict.json", "Dog/result/scores.json"):
        (folder / name).write_text("{}")
    told = prepare("--val=0")
    assert "results of this program are no photographs and are left out: old, Dog/result/" in told
    assert set(labels(tmp_path / "out")) == {"Cat/a", "Dog/b", "Dog/masks/c"}
    source, _ = open_photographs(folder, ("Cat",))
    assert source.ids == ["Cat/a", "Dog/b", "Dog/masks/c"] == ids_below(folder)


def test_a_dry_run_needs_no_folder(
    prepare: Prepare, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    command = ["prepare.py", "folder", str(photographs(tmp_path / "x", "Cat/a.jpg", "Dog/b.jpg"))]
    assert main([*command, "--dry_run", "--val=0"]) == 0
    assert "nothing is written because of --dry_run" in capsys.readouterr().out
    assert main(command) == 2
    assert "--out is missing: where the data set goes; only --dry" in capsys.readouterr().err


def test_misspellings_are_refused_merged_or_kept(prepare: Prepare, tmp_path: Path):
    folder = photographs(tmp_path / "photos", *(f"{n}.jpg" for n in range(15)))
    names = ["Dog"] * 6 + ["Dgo"] + ["Type 1"] * 6 + ["Type 2", "Car"]
    (folder / "labels.csv").write_text(
        "\n".join(["file,label", *(f"{n}.jpg,{name}" for n, name in enumerate(names))])
    )
    told = prepare("--val=0", "--dry_run", status=2)
    assert (
        "classes that may be mistakes: 1 ('Dgo' once, row 8 of labels.csv; did you mean Dog?):"
        " correct them" in told
    )
    assert not (tmp_path / "out").exists()
    assert "kept: 'Dgo' once" in prepare("--val=0", "--yes", "--dry_run")
    prepare("--val=0", "--merge")
    assert (tmp_path / "out/classes.txt").read_text() == "Car\nDog\nType 1\nType 2\n"
    assert labels(tmp_path / "out")["6"] == {"Dog"}


def test_remarks_are_no_classes(prepare: Prepare, tmp_path: Path):
    """Neither in a table without header nor as a class of a single photograph."""
    folder = photographs(tmp_path / "photos", *(f"{n}.jpg" for n in range(24)))
    rows = [f"{n}.jpg,{('Cat', 'Dog')[n % 2]}" for n in range(24)]
    (folder / "labels.csv").write_text("\n".join(f"{r},{n % 5}" for n, r in enumerate(rows)))
    told = prepare(status=2)
    assert "found '0' in column 3, whose texts are in no other column" in told
    assert "--label_column 2" in told
    prepare("--label_column=2", "--val=0")
    assert (tmp_path / "out/classes.txt").read_text() == "Cat\nDog\n"
    shutil.rmtree(tmp_path / "out")
    assert "expected numbers of columns among 2, 3" in prepare("--label_column=class", status=2)
    ragged = [f"{row},{'a bit blurry, too' if n == 3 else ''}" for n, row in enumerate(rows)]
    (folder / "labels.csv").write_text("\n".join(ragged).replace(",\n", "\n"))
    assert "found 'a bit blurry' in column 3" in prepare(status=2)
    # In a list of classes, it is a class of one photograph.
    rows[5] = "5.jpg,Dog;blurry"
    (folder / "labels.csv").write_text("\n".join(rows))
    told = prepare(status=2)
    assert "classes that may be mistakes: 1 ('blurry' once, row 6 of labels.csv)" in told
    prepare("--yes", "--val=0")
    assert labels(tmp_path / "out")["5"] == {"Dog", "blurry"}


@pytest.mark.parametrize("word", ["?", "Unknown", "n/a", "not sure"])
def test_a_label_that_is_open_is_no_class(prepare: Prepare, tmp_path: Path, word: str):
    folder = photographs(tmp_path / "photos", "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    (folder / "labels.csv").write_text(f"file,label\na,Cat\nb,{word}\nc,Dog\nd,Cat;{word}\n")
    told = prepare(status=2)
    assert f"labels that are open: 2 ({word!r}, row 3 of labels.csv" in told
    assert "photographs whose label is open are left out: 2 (b.jpg, d.jpg)" in prepare(
        "--unlabeled=leave_out", "--val=0"
    )
    assert labels(tmp_path / "out") == {"a": {"Cat"}, "c": {"Dog"}}
    shutil.rmtree(tmp_path / "out")
    prepare("--unlabeled=background", "--val=0")
    assert labels(tmp_path / "out") == {"a": {"Cat"}, "b": set(), "c": {"Dog"}, "d": {"Cat"}}
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "classes.txt").write_text(f"Cat\nDog\n{word}\n")
    prepare(f"--classes={tmp_path / 'classes.txt'}", "--val=0")
    assert labels(tmp_path / "out")["d"] == {"Cat", word}


def test_two_classes_in_a_name(prepare: Prepare, tmp_path: Path):
    folder = photographs(tmp_path / "photos", *A_TO_D)
    (folder / "labels.csv").write_text("file,label\na,Cat\nb,Cat and dog\nc c,Dog\nd,none\n")
    told = prepare("--val=0")
    assert labels(tmp_path / "out") == EXPECTED
    assert "several classes in one name: 'Cat and dog' as Cat and dog" in told


def test_a_table_without_photographs(prepare: Prepare, tmp_path: Path):
    folder = photographs(tmp_path / "photos", "a.jpg", "b.jpg")
    (folder / "labels.csv").write_text("class,remark\nCat,x\nDog,y\n")
    told = prepare(status=2)
    assert "expected a column that names photographs in" in told
    assert "found class, remark, where no cell is the name of one" in told


def test_given_classes(prepare: Prepare, tmp_path: Path):
    folder = photographs(tmp_path / "photos", "a.jpg", "b.jpg", "c.jpg")
    (tmp_path / "classes.txt").write_text("_background_\nDog\nCat\n")
    option = f"--classes={tmp_path / 'classes.txt'}"
    (folder / "labels.csv").write_text("file,label\na,cat\nb,Dgo\nc,0\n")
    message = prepare(option, status=2)
    assert "names that are no classes: 1 ('Dgo', row 3 of labels.csv; did you mean Dog?)" in message
    (folder / "labels.csv").write_text(f"file,label\na,cat\nb,{'9' * 5000}\nc,0\n")
    assert "names that are no classes: 1 ('999" in prepare(option, status=2)
    (folder / "labels.csv").write_text("file,label\na,2\nb,1\nc,0\n")
    prepare(option, "--val=0")
    assert labels(tmp_path / "out") == {"a": {"Cat"}, "b": {"Dog"}, "c": set()}
    assert (tmp_path / "out/classes.txt").read_text() == "Dog\nCat\n"


def test_numbers_need_names(prepare: Prepare, tmp_path: Path):
    folder = photographs(tmp_path / "photos", "a.jpg", "b.jpg")
    (folder / "labels.csv").write_text("file,label\na,0\nb,1\n")
    assert "found only numbers (0, 1): give their names with --classes" in prepare(status=2)


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


def test_photographs_are_linked_or_become_pngs(prepare: Prepare, tmp_path: Path):
    folder = tmp_path / "photos/Cat"
    plain = save(folder / "plain.JPG", 1)
    wrong = save(folder / "really a jpeg.jpg", 2)
    os.rename(wrong, wrong.with_suffix(".png"))
    turned = save(folder / "turned.jpg", 3, orientation=6)
    webp = save(folder / "w.webp", 4)
    save(folder / "glass.png", 5, "RGBA")
    save(tmp_path / "photos/Dog/ t\n.tif", 6)
    told = prepare("--val=0")
    images = tmp_path / "out/JPEGImages"
    assert (images / "Cat/plain.jpg").samefile(plain)
    assert (images / "Cat/really a jpeg.jpg").samefile(wrong.with_suffix(".png"))
    for path in (turned, webp):
        written = decode_photograph((images / f"Cat/{path.stem}.png").read_bytes(), "")
        original = decode_photograph(path.read_bytes(), "")
        assert written.orientation == 1 and np.array_equal(written.pixels, original.pixels)
    assert decode_image((images / "Cat/turned.png").read_bytes(), "").shape == (20, 12, 3)
    assert "turned as their EXIF orientation says: 1 (Cat/turned)" in told
    assert "whose stored colors are used: 1 (Cat/glass)" in told
    assert (images / "Dog/_t_.png").is_file() and "Dog/_t_" in ids(tmp_path / "out", "train")
    record = json.loads((tmp_path / "out/prepared.json").read_text())
    assert record["splits"] == {"train": 6, "val": 0} and len(record["changed"]) == 3
    with (tmp_path / "out/sources.csv").open(newline="") as file:
        sources = {row["id"]: row for row in csv.DictReader(file)}
    assert sources["Cat/w"]["file"] == str(webp) and len(sources["Cat/w"]["sha256"]) == 64
    shutil.rmtree(tmp_path / "out")
    prepare("--val=0", "--copy")
    assert not (images / "Cat/plain.jpg").samefile(plain)
    assert (images / "Cat/plain.jpg").read_bytes() == plain.read_bytes()


def test_masks_of_two_values(prepare: Prepare, tmp_path: Path):
    photographs(tmp_path / "photos", "Cat/a.jpg", "Dog/b.jpg", "Dog/c.jpg")
    mask = np.zeros((12, 20), np.uint8)
    mask[3:6] = 255
    for name, content in (("a_mask.png", mask), ("b.png", np.repeat(mask[..., None], 3, -1))):
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(content).save(tmp_path / "masks" / name)
    option = f"--masks={tmp_path / 'masks'}"
    assert "if 255 marks the object, say --foreground 255" in prepare(option, status=2)
    prepare(option, "--foreground=255", "--val=0")
    for name, index in (("Cat/a", 1), ("Dog/b", 2)):
        with Image.open(tmp_path / "out/SegmentationClass" / f"{name}.png") as image:
            assert image.getpalette()[: 3 * 3] == VOC_PALETTE[:3].ravel().tolist()  # pyright: ignore
            assert np.array_equal(np.asarray(image), mask // 255 * index)


def test_masks_that_do_not_fit_are_named(prepare: Prepare, tmp_path: Path):
    photographs(tmp_path / "photos", "Cat/a.jpg", "Dog/b.jpg", "Dog/c.jpg", "Dog/d.jpg")
    for name, content in {
        "a.png": np.full((20, 12), 1, np.uint8),
        "b.png": np.full((12, 20), 1, np.uint8),
        "c.png": np.array(picture(1)),
        "e.png": np.zeros((12, 20), np.uint8),
    }.items():
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(content).save(tmp_path / "masks" / name)
    message = prepare(f"--masks={tmp_path / 'masks'}", status=2)
    assert (
        "masks without a photograph: 1 (e.png)" in message
        and "masks that cannot be used: 3" in message
    )
    for part in ("12 x 20 in", "found Cat as well", "found colors"):
        assert part in message


def test_an_interrupted_command_goes_on(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    photographs(tmp_path / "photos", *(f"{name}/{n}.webp" for name in "XY" for n in range(3)))
    from wsss_jax.preparing import data_set

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(data_set, "write_lists", interrupted)
    line = prepare(status=130)
    assert line.startswith("to resume: python -m wsss_jax.prepare folder ")
    first = (tmp_path / "out/JPEGImages/X/0.png").stat()
    monkeypatch.undo()
    prepare()
    assert (tmp_path / "out/JPEGImages/X/0.png").stat().st_mtime_ns == first.st_mtime_ns
    assert "was ready before" in prepare()
    assert not list((tmp_path / "out").glob(".*"))
    assert "found a data set of other files or options" in prepare("--seed=1", status=2)


def test_recipes_need_the_root_alone(prepare: Prepare, tmp_path: Path):
    names = ("Cat/a b.jpg", "Cat/c/my photo/e.png", "two words/a photo/b.jpg", "two words/d.webp")
    photographs(tmp_path / "photos", *names)
    prepare("--val=0")
    settings = DataSettings.defaults(
        "voc2012", root=str(tmp_path / "out"), data_dir=str(tmp_path / "records"), masks="none"
    )
    source = DataSettings.from_config(settings, "data").open("train")
    assert source.classes == ("Cat", "two words") and len(source) == 4
    found = {source[n]["id"]: source[n]["label"].tolist() for n in range(4)}
    assert found == {
        # Its blank would divide an image and a mask in a list.
        **{"Cat/a b": [1, 0], "Cat/c/my_photo/e": [1, 0]},
        **{"two words/a photo/b": [0, 1], "two words/d": [0, 1]},
    }
    (tmp_path / "out/prepared.json").unlink()  # Without it, the folder is one like any other.
    with pytest.raises(Exception, match="expected labels"):
        DataSettings.from_config(settings, "data").open("train")


def test_help_of_the_command(capsys: pytest.CaptureFixture[str]):
    assert main(["prepare.py", "folder", "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: python -m wsss_jax.prepare folder SOURCE --out DIR [options]")
    assert len(re.findall("\n    python -m wsss_jax.prepare folder ", text)) == 5
    assert all(len(line) <= 100 for line in text.splitlines())
    assert main(["prepare.py", "foldr"]) == 2
    assert "did you mean folder?" in capsys.readouterr().err
    assert main(["prepare.py", "folder", "--out=x"]) == 2
    assert "SOURCE is missing" in capsys.readouterr().err


@pytest.mark.parametrize("name", ("folder", "voc", "coco14", "verify"))
def test_examples_are_real(name: str, capsys: pytest.CaptureFixture[str]):
    assert main(["prepare.py", name, "--help"]) == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 100 for line in text.splitlines())
    examples = text.split("examples:\n")[1].split("\nexit status:")[0].replace("\\\n", " ")
    lines = [line for line in examples.splitlines() if line.startswith("    python")]
    assert len(lines) >= 2
    for line in lines:
        python, minus_m, program, command, *arguments = shlex.split(line)
        assert (python, minus_m, program, command) == ("python", "-m", "wsss_jax.prepare", name)
        _COMMANDS[name][0]().parse(arguments)
    assert main(["prepare.py", name, "--version"]) == 0
    assert capsys.readouterr().out.startswith("wsss_jax ")


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


def test_few_photographs_get_small_batches_and_more_epochs(tmp_path: Path, prepare: Prepare):
    names = [f"{name}{i}.jpg" for name in ("cat", "dog") for i in range(10)]
    photographs(tmp_path / "photos", *names)
    lines = "".join(f"{name},{name[:3]}\n" for name in names)
    (tmp_path / "photos/labels.csv").write_text("image,class\n" + lines)
    told = prepare("--val=0.5")
    for stage in ("train", "train_affinity", "train_segmentation"):
        assert f"--config.{stage}.batch_size=4" in told
    # 10 images of train are 2 steps of 4.
    epochs = re.findall(r"--config\.(\w+)\.epochs=(\d+)", told)
    assert epochs == [("train", "100"), ("train_affinity", "50"), ("train_segmentation", "300")]
    shutil.rmtree(tmp_path / "out")
    told = prepare("--val=0.2")
    assert "batch_size" not in told and "--config.train.epochs=200" in told


def test_the_settings_for_few_images_make_the_steps_that_trainings_ask_for():
    stages = ("train", "train_affinity", "train_segmentation")
    assert not _fitting(10_000) and not _fitting(16 * 50)
    for count in (2, 10, 16, 100, 300):
        settings = _fitting(count)
        recipe = read_recipe("seam_own_light", tuple(settings))
        trainings = {n.name: n.stage for n in graph.stages(recipe) if isinstance(n.stage, Train)}
        assert tuple(trainings) == stages
        for name, training in trainings.items():
            needed = training.method.enough_steps
            assert training.steps_for(count) >= needed and training.batch_size <= count
            if f"--config.{name}.epochs={training.epochs}" in settings:
                shorter = dataclasses.replace(training, epochs=training.epochs - 1)
                assert shorter.steps_for(count) < needed, "no more than that"
    assert _fitting(2)[0] == "--config.train.batch_size=2"
    epochs = zip(stages, (20, 10, 60), strict=True)
    assert _fitting(160) == [f"--config.{name}.epochs={number}" for name, number in epochs]


def test_a_mask_of_too_many_pixels_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match="expected an image of at most 200 pixels"):
        GivenMask(tmp_path / "a.png", 0, 0).read((64, 64), 2)


def test_a_mask_of_several_channels_takes_no_more_memory_than_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    Image.new("LA", (64, 64)).save(tmp_path / "a.png")
    mask = GivenMask(tmp_path / "a.png", 0, 0)
    monkeypatch.setattr(images, "_MOST_MEMORY", 7 * 64 * 64)
    assert mask.read((64, 64), 2).shape == (64, 64)
    monkeypatch.setattr(
        images, "_MOST_MEMORY", 7 * 64 * 64 - 4 * (tmp_path / "a.png").stat().st_size
    )
    with pytest.raises(UserError, match="found 64 x 64 pixels, which need 28,672, in"):
        mask.read((64, 64), 2)


@pytest.mark.parametrize("depth", [900, 5_000, 100_000])
def test_names_in_lists_in_lists_are_one_line(depth: int, prepare: Prepare, tmp_path: Path):
    photographs(tmp_path / "photos", "a.jpg", "b.jpg")
    labels = tmp_path / "photos" / "labels.json"
    labels.write_text('{"a.jpg": ' + "[" * depth + '"cat"' + "]" * depth + "}")
    assert "expected labels" in prepare(status=2)
