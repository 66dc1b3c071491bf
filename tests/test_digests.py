"""Files of a stage that were damaged or exchanged are found by the lists of what it wrote."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.toys.adding_stages import adding_config, make_workdir, stages_run
from tests.toys.records import finish
from wsss_jax import digests
from wsss_jax.errors import UserError
from wsss_jax.files import read_json, write_json
from wsss_jax.pipeline import run
from wsss_jax.report.collect import collect
from wsss_jax.weights.npz import load_weights, save_weights


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_workdir(tmp_path, monkeypatch)


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """The folder of a finished stage with the maps of three images."""
    folder = tmp_path / "cam_train"
    (folder / "cams/more").mkdir(parents=True)
    write_json(folder / "_START.json", {})
    write_json(folder / "config.json", {})
    with digests.FileList(folder) as noted:
        for name in ("a", "b c", "more/ü"):
            path = folder / f"cams/{name}.npz"
            write = lambda text, paths: paths[0].write_text(text)  # noqa: E731
            _, files = digests.write_and_note(write, folder, f"maps of {name}"[:9], (path,))
            noted.add(files)
    finish(folder, files=digests.seal(folder))
    return folder


def test_a_stage_as_it_was_written_has_no_damage(stage: Path):
    assert digests.damage(stage) == ""
    lines = (stage / "_FILES-0.txt").read_text().splitlines()
    named = [line.split(" ", 2)[2] for line in lines if line]
    assert named == ["cams/a.npz", "cams/b c.npz", "cams/more/ü.npz", "config.json"]


def exchange(stage: Path) -> None:
    shutil.copy(stage / "cams/a.npz", stage / "cams/b c.npz")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)


def replaced(stage: Path, make: Callable[[Path], object], name: str = "_FILES-0.txt") -> None:
    (stage / name).unlink()
    make(stage / name)


DAMAGES = {
    "cams/b c.npz has changed": exchange,
    "cams/more/ü.npz has changed": lambda stage: flip(stage / "cams/more/ü.npz"),
    "cams/a.npz is missing": lambda stage: (stage / "cams/a.npz").unlink(),
    "config.json has changed": lambda stage: (stage / "config.json").write_text("{} "),
    "cams/a.npz is missing (and 2 more)": lambda stage: shutil.rmtree(stage / "cams"),
    "_FILES-0.txt is missing": lambda stage: (stage / "_FILES-0.txt").unlink(),
    "_FILES-0.txt has changed": lambda stage: flip(stage / "_FILES-0.txt"),
    "_FILES-0.txt has changed (a folder)": lambda stage: replaced(stage, Path.mkdir),
    "_FILES-0.txt is missing (a pipe)": lambda stage: replaced(stage, os.mkfifo),
    "cams/a.npz has changed (a pipe)": lambda stage: replaced(stage, os.mkfifo, "cams/a.npz"),
    "_FILES-1.txt has changed": lambda stage: (stage / "_FILES-1.txt").write_text(""),
}


@pytest.mark.parametrize("found", DAMAGES)
def test_damage_is_told_with_what_to_do(found: str, stage: Path):
    DAMAGES[found](stage)
    with pytest.raises(UserError) as caught:
        digests.check(stage)
    what = found.partition(" (a ")[0]
    assert str(caught.value) == (
        f"expected the files in {stage} as the stage wrote them, found that {what}:"
        " restore it, or make it again with --only cam_train --force"
    )


def test_processes_share_the_files(stage: Path):
    (stage / "cams/more/ü.npz").unlink()
    found = [digests.damage(stage, share=(i, 2)) for i in range(2)]
    assert found[1] == "" and "ü.npz is missing:" in found[0]


def test_a_file_that_was_made_again_fits_its_new_line(stage: Path):
    (stage / "cams/a.npz").write_text("others")
    with digests.FileList(stage) as noted:
        noted.add(digests.write_and_note(lambda *_: None, stage, 0, (stage / "cams/a.npz",))[1])
    finish(stage, files=digests.seal(stage))
    assert digests.damage(stage) == ""
    assert set(digests.intact(stage, lambda name: name.startswith("cams/a"))) == {"cams/a.npz"}


def test_a_line_that_was_cut_notes_nothing(stage: Path):
    noted = stage / "_FILES-0.txt"
    noted.write_bytes(noted.read_bytes()[:-4])
    names = set(digests.intact(stage, lambda name: True))
    assert names == {"cams/a.npz", "cams/b c.npz", "cams/more/ü.npz"}
    with digests.FileList(stage) as more:
        more.add(digests.write_and_note(lambda *_: None, stage, 0, (stage / "config.json",))[1])
    assert "config.json" in set(digests.intact(stage, lambda name: True))


def test_stages_of_earlier_versions_have_no_lists(stage: Path):
    finish(stage)
    exchange(stage)
    assert digests.damage(stage) == ""


@pytest.mark.parametrize("damaged", ["value", "metrics.json"])
def test_a_run_refuses_results_that_were_changed(workdir: Path, damaged: str):
    run.run(adding_config(), workdir, only=("a", "b"))
    assert set(read_json(workdir / "a/_DONE.json")["files"]) == {"_FILES-0.txt"}
    stages_run(workdir)
    (workdir / "b" / damaged).write_text("7")
    with pytest.raises(UserError, match=f"{damaged} has changed: .*--only b --force"):
        run.run(adding_config(), workdir)
    assert stages_run(workdir) == []
    run.run(adding_config(), workdir, only=("b",), force=True)
    run.run(adding_config(), workdir)
    assert stages_run(workdir) == ["b", "c", "d"]


@pytest.mark.parametrize("damaged", ["a", "b"])
def test_force_removes_nothing_whose_inputs_were_changed(workdir: Path, damaged: str):
    run.run(adding_config(), workdir)
    if damaged == "b":  # It goes on, and c would be removed because b runs again.
        (workdir / "b/_DONE.json").unlink()
        change, only = adding_config(c={"add": 2.0}), ()
    else:
        change, only = adding_config(b={"add": 2.0}), ("b",)
    stages_run(workdir)
    good = {one: (workdir / one / "value").read_text() for one in "bcd"}
    value = (workdir / "a/value").read_text()
    (workdir / "a/value").write_text("7")
    with pytest.raises(UserError, match=r"value has changed: .*--only a --force"):
        run.run(change, workdir, only=only, force=True)
    assert {one: (workdir / one / "value").read_text() for one in "bcd"} == good
    assert (workdir / "c/_DONE.json").exists() and stages_run(workdir) == []
    (workdir / "a/value").write_text(value)
    run.run(change, workdir, only=only, force=True)
    assert stages_run(workdir) == (["b", "c"] if damaged == "b" else ["b"])


def test_a_run_refuses_files_in_folders_that_were_changed(workdir: Path):
    run.run(adding_config(), workdir, only=("a",))
    (workdir / "a/_DONE.json").unlink()
    for name in ("maps/more/one", "logs/one"):
        (workdir / "a" / name).parent.mkdir(parents=True)
        (workdir / "a" / name).write_text("1")
        with digests.FileList(workdir / "a") as noted:
            noted.add([digests.found(workdir / "a", name)])
    run.run(adding_config(), workdir, only=("a",))
    (workdir / "a/logs/one").unlink()
    run.run(adding_config(), workdir, only=("b",))
    (workdir / "a/maps/more/one").write_text("2")
    with pytest.raises(UserError, match="maps/more/one has changed: "):
        run.run(adding_config(), workdir, only=("d",))


def test_inputs_are_compared_once_and_again_before_later_stages(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
):
    compared: list[str] = []
    check = digests.check

    def counted(folder: Path, *rest: Any, **more: Any) -> None:
        compared.append(folder.name)
        check(folder, *rest, **more)

    monkeypatch.setattr(digests, "check", counted)
    run.run(adding_config(), workdir)
    assert compared == ["a", "b", "a"]  # b, c and d need them.
    compared.clear()
    run.run(adding_config(b={"add": 2.0}), workdir, only=("b",), force=True)
    assert compared == ["a"]
    compared.clear()
    run.run(adding_config(b={"add": 3.0}), workdir, only=("b", "d"), force=True)
    assert compared == ["a", "a"]  # before b and d are removed, and before d runs


def test_files_that_no_stage_reads_make_no_difference(workdir: Path):
    run.run(adding_config(), workdir, only=("a",))
    (workdir / "a/_DONE.json").unlink()
    (workdir / "a/notes.txt").write_text("see also run 7")
    run.run(adding_config(), workdir, only=("a",))
    lines = (workdir / "a/_FILES-0.txt").read_text().splitlines()
    assert {"notes.txt", "half"} <= {line.split(" ", 2)[2] for line in lines if line}
    (workdir / "a/notes.txt").unlink()
    with open(workdir / "a/half", "a") as log:
        log.write("more")
    stages_run(workdir)
    run.run(adding_config(), workdir)
    assert stages_run(workdir) == ["b", "c", "d"]


def test_lists_are_on_the_disk_before_the_record_and_once(
    stage: Path, monkeypatch: pytest.MonkeyPatch
):
    flushed: list[tuple[int, int]] = []

    def fsync(descriptor: int) -> None:
        state = os.fstat(descriptor)
        flushed.append((state.st_ino, state.st_size))

    monkeypatch.setattr(os, "fsync", fsync)
    (stage / "_DONE.json").unlink()
    with digests.FileList(stage, 1) as noted:
        for name in ("a", "b c"):
            noted.add([digests.found(stage, f"cams/{name}.npz")])
    assert flushed == []
    digests.seal(stage)
    states = [(stage / f"_FILES-{process}.txt").stat() for process in range(2)]
    assert flushed == [(state.st_ino, state.st_size) for state in states]


def test_the_report_says_that_a_log_was_shortened(tmp_path: Path):
    folder = tmp_path / "train"
    folder.mkdir()
    write_json(folder / "_START.json", {})
    write_json(folder / "metrics.json", {"steps": 2, "warnings": ["few steps"]})
    (folder / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    (folder / "weights.npz").write_bytes(b"large")
    finish(folder, files=digests.seal(folder))
    planned: Any = SimpleNamespace(name="train", type="train", needs={}, section={})

    def warnings() -> list[str]:
        return [text for _, text in collect([planned], ConfigDict(), tmp_path, "").warnings]

    assert warnings() == ["few steps"]
    (folder / "weights.npz").unlink()
    assert warnings() == ["few steps"]  # It shows no weights.
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    (_, warning) = warnings()
    assert "metrics.jsonl has changed: restore it, or make it again with --only train" in warning


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path):
    params = {"conv": {"kernel": jnp.ones((2, 2)), "bias": jnp.zeros(2)}}
    counts = {"batch_stats": {"n": jnp.zeros(1, jnp.int32)}}
    folder = tmp_path / "train"
    save_weights(folder / "weights.npz", params, counts)
    load_weights(folder / "weights.npz", params, counts)
    write_json(folder / "_START.json", {})
    params["conv"]["kernel"] = params["conv"]["kernel"].at[0, 1].set(value)
    save_weights(folder / "weights.npz", params, counts)
    with pytest.raises(UserError) as caught:
        load_weights(folder / "weights.npz", params, counts)
    assert str(caught.value) == (
        f"expected finite weights in {folder / 'weights.npz'}, found NaN or infinity in"
        " params/conv/kernel: make it again with --only train --force"
    )
