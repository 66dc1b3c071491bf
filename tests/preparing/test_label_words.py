"""Words that are classes, spellings of one, or none."""

import shutil
from pathlib import Path

import pytest

from tests.preparing.results import A_TO_D, EXPECTED, Prepare, labels
from tests.preparing.sources import photographs


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
