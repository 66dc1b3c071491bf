"""From a folder and a spreadsheet to masks of new photographs, by commands alone."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.preparing.sources import save
from wsss_jax.__main__ import main
from wsss_jax.data.images import decode_image
from wsss_jax.data.masks import decode_mask

ROWS = (
    ("Big Cats/lion 1.JPG", "Lion", 1),
    ("Big Cats/lion 2.jpeg", "LION", 6),
    ("Big Cats/deep down/lion.3.webp", "lion; Rock", 1),
    ("rock-1.png", "Rock", 1),
    ("rock 2.PNG", "rock", 1),
    ("Tree é 1.tif", "Tree", 1),
    ("tree 2.bmp", "Tree, Rock", 1),
    ("tree3.jpg", "TREE", 3),
    ("nothing.jpg", "", 1),
    ("broken.jpg", "Lion", 1),
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "my photos"
    for seed, (name, _, orientation) in enumerate(ROWS):
        mode = "RGBA" if name == "rock-1.png" else "RGB"
        save(folder / name, seed, mode, orientation, size=(60, 44))
    broken = folder / "broken.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    lines = [f'{Path(name).name.upper()};"{label}";x' for name, label, _ in ROWS]
    text = "\r\n".join(["Image_ID;Label;Remark", *lines, ""])
    (folder / "My Labels.CSV").write_bytes(text.encode("utf-8-sig"))
    return folder


def commands_in(text: str) -> list[list[str]]:
    """The commands that a text tells to run next."""
    lines = text.replace("\\\n", " ").splitlines()
    found = [shlex.split(line[line.index("python -m") :]) for line in lines if "python -m" in line]
    return [["wsss-jax", words[2].removeprefix("wsss_jax."), *words[3:]] for words in found]


@pytest.mark.slow
def test_prepare_verify_train_predict(
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    """Each command but the first is the one that the command before tells."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WSSS_JAX_DATA", str(tmp_path / "records"))
    mine, workdir = tmp_path / "mine", tmp_path / "runs/mine"
    prepare = ["wsss-jax", "prepare", "folder", "my photos", "--out=mine"]
    assert main(prepare) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "photographs that cannot be read: 1 (broken.jpg)" in message and not mine.exists()
    assert main([*prepare, "--skip_damaged"]) == 0
    told = capsys.readouterr().out
    assert "photographs become PNGs, turned as their EXIF orientation says: 2" in told
    assert "transparent parts, whose stored colors are used: 1 (rock-1)" in told
    assert (mine / "classes.txt").read_text().split() == ["Lion", "Rock", "Tree"]
    record = json.loads((mine / "prepared.json").read_text())
    assert record["images_of_classes"] == {"Lion": 3, "Rock": 4, "Tree": 3}
    assert sum(record["splits"].values()) == 9 and record["left_out"] == ["broken.jpg"]
    verify, run = commands_in(told)

    assert main(verify) == 0
    assert "nothing to mend" in capsys.readouterr().out and (mine / "verify.html").is_file()

    small = [f"--config.{name}.batch_size=2" for name in TRAININGS]
    small += [f"--config.{name}.steps=2" for name in TRAININGS]
    small += [f"--config.{name}.augment.crop=32" for name in TRAININGS]
    small += [f"--config.{name}.init_weights=" for name in ("train", "train_affinity")]
    small += [f"--config.{name}.method.backbone.name=tiny" for name in TRAININGS]
    small += ["--config.train_segmentation.init_weights=", "--config.cam.scales=(1.0,)"]
    assert main(["wsss-jax", "run", *run[2:], *small]) == 0
    told = capsys.readouterr().out
    made = sorted(
        p.relative_to(workdir / "masks_train/masks")
        for p in workdir.glob("masks_train/masks/**/*.png")
    )
    listed = (mine / "ImageSets/Segmentation/train.txt").read_text().splitlines()
    assert [p.as_posix().removesuffix(".png") for p in made] == sorted(listed)
    assert f"best masks of train (masks_train, the last ones; none are scored): {workdir}" in told
    page = (workdir / "report.html").read_text()
    assert "<strong>Best masks of train:</strong> masks_train" in page
    assert 'id="explorer-data"' in page

    (predict,) = commands_in(told.partition("masks of other photographs: ")[2])
    words = {"PHOTOS": "my photos", "RESULT": "result"}
    predict = [words.get(word, word) for word in predict]
    # One of them is broken.
    assert main([*predict, "--scales=1", "--no-crf", "--scores", "--polygons"]) == 1
    result, turned = tmp_path / "result", photos / "Big Cats/lion 2.jpeg"
    mask = decode_mask((result / "masks/Big Cats/lion 2.png").read_bytes(), "", 3)
    assert mask.shape == decode_image(turned.read_bytes(), "").shape[:2] == (60, 44)
    with Image.open(turned) as image:
        assert image.size == (60, 44)  # stored lying on its side
    assert np.isin(mask, range(4)).all()
    scores = json.loads((result / "scores.json").read_text())
    assert set(scores["Tree é 1"]["classes"]) == {"background", "Lion", "Rock", "Tree"}
    assert len(json.loads((result / "polygons.json").read_text())["images"]) == 9


TRAININGS = ("train", "train_affinity", "train_segmentation")
