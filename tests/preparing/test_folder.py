"""Folders of photographs become data sets."""

import csv
import dataclasses
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.preparing.results import Prepare, ids, labels
from tests.preparing.sources import photographs, save
from wsss_jax.data.images import decode_image, decode_photograph
from wsss_jax.data.photographs import open_photographs
from wsss_jax.data.plain_folder import ids_below
from wsss_jax.data.sets.base import DataSettings
from wsss_jax.pipeline import graph
from wsss_jax.pipeline.config import read_recipe
from wsss_jax.prepare import _COMMANDS, _fitting, main
from wsss_jax.stages.train import Train


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
