"""Masks of a folder of photographs: as the stage makes them; resuming; mistakes."""

import io
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from tests.reference.drawn_networks import Images, Trained, context
from tests.toys.records import finish
from tests.toys.sections import run_section
from wsss_jax import predict
from wsss_jax.data.class_names import VOC_CLASSES
from wsss_jax.data.images import decode_image
from wsss_jax.data.labels import read_label_file
from wsss_jax.data.masks import decode_mask
from wsss_jax.files import write_json
from wsss_jax.pipeline import imagenet_photos
from wsss_jax.pipeline.photo_folder import RECORD
from wsss_jax.preparing.run_length import decode_segmentation
from wsss_jax.stages.predict import Predict
from wsss_jax.viz.colors import class_colors
from wsss_jax.viz.labeled import labeled_mask
from wsss_jax.weights.imagenet_names import distinct_names

PHOTOS = Images((40, 40), (33, 47), (48, 30))
SETTINGS: dict[str, Any] = dict(
    type="predict", scales=(0.5, 1.0), flip=True, max_buckets=1, batch_pixels=1 << 14
)
SETTINGS |= dict(crf=False, bilateral=(20, 60, 30), iterations=5)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one trained network and one stage that made masks with it."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "network").mkdir()
    Trained(folder / "network", "segmentation", "tiny")
    write_json(folder / "network/metrics.json", {"classes": Images.classes})
    finish(folder / "network")
    write_json(folder / "results.json", {"config": config_of("masks_train", "masks_val")})
    return folder


def config_of(*stages: str) -> dict[str, Any]:
    """A recipe whose last stages make masks; the last of all at other scales than the others."""
    config: dict[str, Any] = {"network": {"type": "train"}, "stages": ["network", *stages]}
    for name in stages:
        needs = {"checkpoint": "network"}
        config[name] = SETTINGS | {"needs": needs, "scales": (1.0,), "known_labels": True}
    return config | {stages[-1]: config[stages[-1]] | {"scales": SETTINGS["scales"]}}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, name in enumerate(PHOTOS.ids):
        (folder / f"{name}.PNG").write_bytes(PHOTOS[index]["image"])
    (folder / "notes.txt").write_text("no image")
    return folder


def call(workdir: Path, photos: Path, out: Path, *more: str) -> int:
    paths = ("--workdir", str(workdir), "--images", str(photos), "--out", str(out))
    return predict.main(["predict.py", *paths, "--workers", "1", *more])


def content(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.glob("*/*"))}


def test_masks_are_those_of_the_stage(workdir: Path, photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    assert call(workdir, photos, out) == 0
    inputs = {"checkpoint": workdir / "network"}
    settings = ConfigDict(SETTINGS | {"split": "val"})
    run_section(Predict, context(tmp_path / "stage", PHOTOS), settings, inputs)
    made = content(out)
    for name in PHOTOS.ids:
        expected = (tmp_path / "stage/masks" / f"{name}.png").read_bytes()
        assert made[f"masks/{name}.png"] == expected
        height, width = cv2.imread(str(out / "overlays" / f"{name}.jpg")).shape[:2]  # pyright: ignore
        assert (height - 24, width) == PHOTOS.sizes[PHOTOS.ids.index(name)]
    assert len(made) == 6
    record = json.loads((out / "predict.json").read_text())
    assert record["classes"] == ["background", *Images.classes]
    assert record["settings"]["scales"] == [0.5, 1.0] and set(record["images"]) == set(PHOTOS.ids)


def test_the_same_command_goes_on(workdir: Path, photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    assert call(workdir, photos, out) == 0
    whole = content(out)
    kept = out / "masks/image_0.png"
    stamp = kept.stat().st_mtime_ns
    (out / "masks/image_1.png").unlink()
    (out / "overlays/image_1.jpg").unlink()
    assert call(workdir, photos, out) == 0
    assert content(out) == whole and kept.stat().st_mtime_ns == stamp
    # Another image under a known name is another image.
    (photos / "image_0.PNG").write_bytes(PHOTOS[1]["image"])
    assert call(workdir, photos, out) == 0
    assert content(out)["masks/image_0.png"] == whole["masks/image_1.png"]


def test_results_of_other_settings_are_not_mixed(
    workdir: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    assert call(workdir, photos, out) == 0
    whole = content(out)
    assert call(workdir, photos, out, "--scales", "1") == 2
    assert (
        "made with other settings (scales was (0.5, 1.0), is now (1.0,)): choose another"
        in capsys.readouterr().err
    )
    (tmp_path / "names.txt").write_text("horse\ndog\ncow\n")
    assert call(workdir, photos, out, "--classes", str(tmp_path / "names.txt")) == 2
    assert "made with other classes" in capsys.readouterr().err
    assert content(out) == whole
    assert call(workdir, photos, tmp_path / "other", "--scales", "1") == 0
    assert content(tmp_path / "other") != whole
    (out / "predict.json").unlink()
    assert call(workdir, photos, out) == 2
    assert "found masks of unknown origin" in capsys.readouterr().err


def test_a_crf_can_be_asked_for(workdir: Path, photos: Path, tmp_path: Path):
    assert call(workdir, photos, tmp_path / "plain") == 0
    assert call(workdir, photos, tmp_path / "crf", "--crf") == 0
    plain, crf = content(tmp_path / "plain"), content(tmp_path / "crf")
    assert plain.keys() == crf.keys()
    assert any(plain[name] != crf[name] for name in plain if name.startswith("masks/"))


def test_damaged_images_are_named_and_left_out(
    workdir: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (photos / "cut.jpg").write_bytes((photos / "image_0.PNG").read_bytes()[:200])
    assert call(workdir, photos, tmp_path / "out") == 1
    said = capsys.readouterr()
    assert "left out: expected an image" in said.err and "cut.jpg" in said.err
    assert "3 masks in" in said.out
    assert len(content(tmp_path / "out")) == 6
    for path in photos.glob("image*"):
        path.write_bytes(b"")
    assert call(workdir, photos, tmp_path / "none") == 2
    assert (
        "found 4 files that cannot be read, the first one because of this: expected an image, found"
        in capsys.readouterr().err
    )


def test_photographs_of_which_none_is_read_are_refused_with_what_to_do(
    workdir: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    phone = photos / "phone"
    phone.mkdir()
    told: list[str] = []
    for name in ("a.HEIC", "b.heif"):
        (phone / name).write_bytes(b"\0\0\0\x24ftypheic\0\0\0\0mif1")
        for place in (phone / name, phone):
            assert call(workdir, place, tmp_path / "out") == 2
            told += capsys.readouterr().err.splitlines()
    convert = "save it as JPEG or PNG (with ImageMagick: magick mogrify -format jpg FILE)"
    assert len(told) == 4 and all(line.endswith(convert) for line in told)
    assert told[0] == told[1] and f"found {phone / 'a.HEIC'}: save" in told[0]
    assert f"expected images in {phone}, found 2 files that cannot be read" in told[3]


def test_photographs_as_they_come(
    workdir: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Subfolders, blanks, other formats, EXIF; what cannot be read is named."""
    whole = tmp_path / "whole"
    assert call(workdir, photos, whole) == 0
    pixels = decode_image(PHOTOS[1]["image"], "x")
    turned = np.ascontiguousarray(np.rot90(pixels))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a turn by 90 degrees to the right
    (photos / "my trip").mkdir()
    Image.fromarray(pixels).save(photos / "my trip/a b.WebP", lossless=True)
    Image.fromarray(pixels).save(photos / "my trip/image_1.tif")
    Image.fromarray(turned).save(photos / "phone.png", exif=exif)
    (photos / "my trip/c.HEIC").write_bytes(b"")
    os.mkfifo(photos / "pipe.jpg")
    (photos / ".hidden.jpg").write_bytes(b"")
    out = photos / "masks of it"
    assert call(workdir, photos, out) == 1
    said = capsys.readouterr()
    assert "found " + str(photos / "my trip/c.HEIC") in said.err
    assert "found a pipe, device or folder: " in said.err
    assert "hidden" not in said.err and "6 masks in" in said.out
    expected = (whole / "masks/image_1.png").read_bytes()
    for name in ("image_1", "my trip/a b", "my trip/image_1", "phone"):
        assert (out / f"masks/{name}.png").read_bytes() == expected, name
        assert (out / f"overlays/{name}.jpg").is_file()
    assert call(workdir, photos, out) == 1, "results are no photographs"
    assert "6 masks in" in capsys.readouterr().out


def test_a_single_photograph(workdir: Path, photos: Path, tmp_path: Path):
    assert call(workdir, photos / "image_1.PNG", tmp_path / "out") == 0
    assert list(content(tmp_path / "out")) == ["masks/image_1.png", "overlays/image_1.jpg"]


def test_the_last_lines_name_all_results(
    workdir: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    def named(*arguments: str) -> set[str]:
        assert predict.main(["predict.py", *arguments]) == 0
        words = re.split("[ ,\n]+", capsys.readouterr().out)
        return {word for word in words if word.startswith("out")}

    def there(out: str) -> set[str]:
        return {str(path) for path in Path(out).iterdir()}

    monkeypatch.chdir(tmp_path)
    one = str(photos / "image_1.PNG")
    command = [f"--workdir={workdir}", one, "--workers=1"]
    assert named(*command, "--out=out1") == there("out1")
    assert named(*command, "--out=out2", "--scores", "--polygons") == there("out2")
    assert len(there("out2")) == len(there("out1")) + 3

    def segment_imagenet(text: str, images: list[Path], out: Path, *_: Any) -> Any:
        for file in (*imagenet_photos.FILES, RECORD, "scores.json"):
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            (out / file).touch()
        return 1, []

    monkeypatch.setattr(imagenet_photos, "segment_imagenet", segment_imagenet)
    assert named("--imagenet=dog", one, "--out=out3") == there("out3")


def listed(data: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data), encoding="ascii")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_lists_in_any_form(
    encoding: str, workdir: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Encodings, ends of lines, and blanks, which may belong to a name."""
    monkeypatch.chdir(photos)
    (photos / "image_0.PNG").rename("Süd 1.png")
    (photos / "image_1.PNG").rename(" b ")
    text = "\tSüd 1.png  \r\n\r\n b \r"
    monkeypatch.setattr("sys.stdin", listed(text.encode(encoding)))
    assert call(workdir, Path("-"), tmp_path / "out") == 0
    assert {p.name for p in (tmp_path / "out/masks").iterdir()} == {"Süd 1.png", " b .png"}


def test_results_of_other_photographs_are_kept(
    workdir: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A name can come again in another folder or with another suffix."""
    (photos / "b").mkdir()
    Image.open(photos / "image_1.PNG").save(photos / "b/image_0.png")
    Image.open(photos / "image_1.PNG").save(photos / "image_0.jpg")
    out = tmp_path / "out"
    more = ("--scores", "--polygons")
    assert call(workdir, photos / "image_0.PNG", out, *more) == 0
    whole = content(out)
    for other in ("b/image_0.png", "image_0.jpg"):
        assert call(workdir, photos / other, out) == 2
        told = capsys.readouterr().err
        assert (
            f"found {photos / other}, and image_0 is the name of {photos / 'image_0.PNG'}" in told
        )
        assert f"such as {tmp_path / 'out_2'}, or name all" in told
        assert content(out) == whole
    # Joint files keep the photographs of earlier commands.
    assert call(workdir, photos / "image_1.PNG", out, *more) == 0
    scores = json.loads((out / "scores.json").read_text())
    assert {n: Path(s["file"]).name for n, s in scores.items()} == {
        "image_0": "image_0.PNG",
        "image_1": "image_1.PNG",
    }
    polygons = json.loads((out / "polygons.json").read_text())
    assert [one["file_name"] for one in polygons["images"]] == ["image_0.PNG", "image_1.PNG"]
    # A photograph that has moved is the same one.
    (photos / "image_1.PNG").rename(photos / "b/image_1.PNG")
    assert call(workdir, photos / "b/image_1.PNG", out) == 0


def test_photographs_from_everywhere(
    workdir: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    """Several paths, patterns, a list on standard input; ids lie below the common folder."""
    (photos / "more").mkdir()
    (photos / "image_2.PNG").rename(photos / "more/image_1.png")
    monkeypatch.chdir(tmp_path)
    command = ["predict.py", f"--workdir={workdir}", "--workers=1"]
    assert predict.main([*command, "photos/**/image_1.*", "--out=a"]) == 0
    assert sorted(p.name for p in (tmp_path / "a/masks").iterdir()) == ["image_1.png", "more"]
    assert (tmp_path / "a/masks/more/image_1.png").is_file()
    monkeypatch.setattr("sys.stdin", listed(b"photos/image_0.PNG\n\nphotos/more\n"))
    assert predict.main([*command, "-", "--images=photos/image_0.PNG"]) == 0
    assert "2 masks in predictions/masks" in capsys.readouterr().out
    assert (tmp_path / "predictions/masks/image_0.png").is_file()
    assert (tmp_path / "predictions/masks/more/image_1.png").is_file()
    for arguments, told in (
        (["no*.jpg"], "expected photographs like 'no*.jpg', found none"),
        ([], "PHOTOS is missing"),
        (
            ["photos", "--imagenet=tabby"],
            "expected --workdir DIR or --imagenet [NAMES], found both",
        ),
    ):
        assert predict.main([*command, *arguments]) == 2
        assert told in capsys.readouterr().err


def test_scores_polygons_and_labels(
    workdir: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    assert call(workdir, photos, tmp_path / "plain") == 0
    assert call(workdir, photos, out, "--scores", "--polygons") == 0
    assert "polygons in " + str(out / "polygons.json") in capsys.readouterr().out
    scores = json.loads((out / "scores.json").read_text())
    polygons = json.loads((out / "polygons.json").read_text())
    assert [one["name"] for one in polygons["categories"]] == list(Images.classes)
    for number, name in enumerate(PHOTOS.ids, 1):
        data = (out / f"masks/{name}.png").read_bytes()
        assert data == (tmp_path / f"plain/masks/{name}.png").read_bytes()
        mask = decode_mask(data, name, 3)
        one = scores[name]
        assert Path(one["file"]) == photos / f"{name}.PNG"
        assert (one["height"], one["width"]) == mask.shape == PHOTOS.sizes[number - 1]
        for index, found in enumerate(one["classes"].values()):
            assert found["share"] == pytest.approx((mask == index).mean())
            assert (found["mean"] is None) == (found["share"] == 0)
            assert found["mean"] is None or 0.25 < found["mean"] <= found["highest"] <= 1
        made = np.zeros_like(mask)
        for region in (a for a in polygons["annotations"] if a["image_id"] == number):
            made[decode_segmentation(region["segmentation"], *mask.shape)] = region["category_id"]
        np.testing.assert_array_equal(made, mask)
    only = tmp_path / "only"
    assert call(workdir, photos, only, "--labels=dog", "--crf", "--scores") == 0
    for name in PHOTOS.ids:
        mask = decode_mask((only / f"masks/{name}.png").read_bytes(), name, 3)
        assert set(np.unique(mask)) <= {0, 2}
        found = json.loads((only / "scores.json").read_text())[name]["classes"]
        assert list(found) == ["background", "dog"]
    assert call(workdir, photos, only, "--crf", "--scores") == 2
    assert "made with other settings (known_labels was True" in capsys.readouterr().err
    assert call(workdir, photos, tmp_path / "x", "--labels=dgo") == 2
    assert "found 'dgo'; did you mean dog?" in capsys.readouterr().err


def test_huge_photographs_take_bounded_memory(
    workdir: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    """The network sees a smaller copy, sums stay on the host, overlays are smaller."""
    config = config_of("masks_val")
    config["masks_val"] |= {"sum_on": "device", "max_pixels": 1500}
    other = tmp_path / "run"
    shutil.copytree(workdir, other)
    write_json(other / "results.json", {"config": config})
    assert call(other, photos, tmp_path / "whole") == 0
    told = capsys.readouterr().err
    assert "note: 2 photographs have more than 0.0015 megapixels (image_0, image_1)" in told
    monkeypatch.setattr("wsss_jax.inference.multi_scale._MOST_SUMS", 0)
    monkeypatch.setattr("wsss_jax.pipeline.photo_folder._OVERLAY_PIXELS", 400)
    assert call(other, photos, tmp_path / "small") == 0
    for index, name in enumerate(PHOTOS.ids):
        one, two = (
            decode_mask((tmp_path / folder / f"masks/{name}.png").read_bytes(), name, 3)
            for folder in ("whole", "small")
        )
        assert one.shape == PHOTOS.sizes[index] and (one != two).mean() < 2e-3
        picture = decode_image((tmp_path / f"small/overlays/{name}.jpg").read_bytes(), name)
        assert picture.shape[1] < PHOTOS.sizes[index][1]


@pytest.mark.parametrize(
    ("arguments", "classes", "photographs"),
    [
        (["--imagenet=tabby", "a.jpg"], "tabby", ["a.jpg"]),
        (["--imagenet", "tabby", "a.jpg", "b.jpg"], "tabby", ["a.jpg", "b.jpg"]),
        (["a.jpg", "--imagenet"], "", ["a.jpg"]),
        (["--imagenet", "a.jpg"], "", ["a.jpg"]),
        (["--imagenet", "a.jpg", "b.JPG"], "", ["a.jpg", "b.JPG"]),
        (["--imagenet", "trip"], "", ["trip"]),
        (["--imagenet", "trip", "trip"], "trip", ["trip"]),
        (["--imagenet", "t*"], "", ["trip"]),
        (["--imagenet", "./trip", "trip"], "", ["trip", "trip"]),
        (["--imagenet", "-"], "", ["c.jpg"]),
        (["--imagenet", "a.heic"], "", ["a.heic"]),
    ],
)
def test_a_photograph_is_no_class(
    arguments: list[str],
    classes: str,
    photographs: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    (tmp_path / "trip").mkdir()
    monkeypatch.chdir(tmp_path)
    seen: list[Any] = []

    def segment_imagenet(text: str, images: list[Path], *_: Any) -> tuple[int, list[str]]:
        seen.append((text, [str(path) for path in images]))
        return 0, []

    monkeypatch.setattr("wsss_jax.pipeline.imagenet_photos.segment_imagenet", segment_imagenet)
    monkeypatch.setattr("sys.stdin", listed(b"c.jpg"))
    assert predict.main(["predict.py", *arguments]) == 0
    assert seen == [(classes, photographs)]


def test_the_classes_of_imagenet_are_listed(capsys: pytest.CaptureFixture[str]):
    assert predict.main(["predict.py", "--imagenet", "list"]) == 0
    told = capsys.readouterr().out
    assert "dog: 118 classes as one (Chihuahua, " in told and "281 tabby, tabby cat\n" in told
    for words in (["horse,", "Sorrel"], ["horse; sorrel"]):
        assert predict.main(["predict.py", "--imagenet", "list", *words]) == 0
        some = capsys.readouterr().out.splitlines()
        assert some[0] == "horse: one class (sorrel)" and set(some) < set(told.splitlines())
        assert "339 sorrel" in some and not any("tabby" in line for line in some)
    assert predict.main(["predict.py", "--imagenet", "nowhere"]) == 2
    assert "PHOTOS is missing, and 'nowhere' is taken for classes: " in capsys.readouterr().err


@pytest.mark.slow
def test_classes_of_imagenet(
    shared: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    """Photographs of dogs, with the weights and names of the extra `light`."""
    labels = read_label_file(shared / "data/lists/cls_labels.npy", VOC_CLASSES)
    folder = shared / "data/voc_animals/VOCdevkit/VOC2012/JPEGImages"
    dog = np.eye(20)[VOC_CLASSES.index("dog")]
    named = [p for p in sorted(folder.glob("*.jpg")) if p.stem in labels]
    dogs = [p for p in named if np.array_equal(labels[p.stem], dog)][:4]
    monkeypatch.chdir(tmp_path)
    assert predict.main(["predict.py", "--imagenet", *map(str, dogs)]) == 0
    capsys.readouterr()
    scores = json.loads(Path("predictions/scores.json").read_text())
    breeds = set(distinct_names()[151:269])
    assert sum(bool(breeds & set(scores[p.stem]["most_probable"])) for p in dogs) >= 3
    for path in dogs:
        size = decode_image(path.read_bytes(), "").shape[:2]
        mask = decode_mask(Path(f"predictions/masks/{path.stem}.png").read_bytes(), "", 3)
        assert mask.shape == size and set(np.unique(mask)) <= {0, 1, 2, 3}
        heat = decode_image(Path(f"predictions/maps/{path.stem}.jpg").read_bytes(), "")
        assert heat.shape[:2] == size
    asked = ["--imagenet=banana, TABBY CAT", str(dogs[0]), "--out=other", "--no-crf"]
    assert predict.main(["predict.py", *asked]) == 0
    said = capsys.readouterr()
    assert f"note: {dogs[0].stem} hardly shows what was asked for; most probable are" in said.err
    assert f"{dogs[0].stem}: banana " in said.out and ", tabby " in said.out
    assert predict.main(["predict.py", "--imagenet=dgo", str(dogs[0])]) == 2
    assert "expected a class of ImageNet, found 'dgo'" in capsys.readouterr().err
    assert predict.main(["predict.py", "--imagenet=tabby", str(dogs[0]), "--stage=x"]) == 2
    assert "--stage needs the network of a run" in capsys.readouterr().err


def test_mistakes_are_told_in_a_line(
    workdir: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def refused(words: str, where: Path, images: Path, out: Path, *more: str) -> None:
        assert call(where, images, out, *more) == 2
        said = [line for line in capsys.readouterr().err.splitlines() if "images/s" not in line]
        assert words in said[0] and len(said) == 1, said

    out = tmp_path / "out"
    refused("expected a photograph or a folder at", workdir, tmp_path / "nowhere", out)
    refused(
        "expected images (.jpg, .jpeg, .png, .bmp, .tif, .tiff, .webp) in", workdir, workdir, out
    )
    refused("another folder than that of the photographs", workdir, photos, photos)
    refused("expected the folder of a run, with results.json", tmp_path, photos, out)
    (tmp_path / "begun/train").mkdir(parents=True)
    (tmp_path / "begun/train/_START.json").write_text("{}")
    refused("found one that is not: run its command again", tmp_path / "begun", photos, out)
    asked = ("--stage", "network")
    refused("found masks_train, masks_val: name one of them", workdir, photos, out, *asked)
    refused("expected positive scales", workdir, photos, out, "--scales", "0")
    refused("--labels: expected names, which commas sep", workdir, photos, out, "--labels", " , ")
    refused("--polygons of 0 or more pixels, found nan", workdir, photos, out, "--polygons=nan")
    (photos / "image_1.jpg").write_bytes(b"")
    refused("found image_1.PNG and image_1.jpg", workdir, photos, out)
    (photos / "image_1.jpg").unlink()

    other = tmp_path / "run"
    stages = {"train": {"type": "train"}, "stages": ["train"]}
    write_json(other / "results.json", {"config": stages})
    refused("found none: run a recipe that has one", other, photos, out)
    write_json(other / "results.json", {"config": config_of("masks_val")})
    refused("found an unfinished stage", other, photos, out)
    finish(other / "network")
    write_json(other / "network/metrics.json", {})
    refused("name a file of them with --classes", other, photos, out)
    assert not out.exists()


def test_names_stand_below_the_picture():
    image = np.full((60, 300, 3), 90, np.uint8)
    mask = np.zeros((60, 300), np.uint8)
    names = ["cat", "dog", "cow"]
    empty = labeled_mask(image, mask, names)
    mask[:30], mask[30:40, :50] = 3, 1
    picture = labeled_mask(image, mask, names)
    assert picture.shape == empty.shape == (84, 300, 3)

    def shows(index: int) -> int:
        """The first column of the line below where the class's color is."""
        found = (picture[60:] == class_colors(3)[index]).all(-1).any(0)
        return int(found.argmax()) if found.any() else -1

    assert 0 < shows(3) < shows(1) and shows(2) == -1, "what covers more stands first"
    narrow = labeled_mask(image[:, :60], np.tile(np.array([1, 2, 3], np.uint8), (60, 20)), names)
    assert narrow.shape == (84, 60, 3)


def test_names_that_no_font_can_write_are_shown_as_numbers():
    image, mask = np.full((60, 400, 3), 90, np.uint8), np.full((60, 400), 2, np.uint8)

    def line(*names: str) -> np.ndarray:
        return labeled_mask(image, mask, names)[60:]

    nowhere = "\U0010fffd"  # for private use; Chinese depends on the fonts of the machine
    np.testing.assert_array_equal(line("cat", nowhere), line("cat", "class 2"))
    assert (line("cat", "裂缝") != line("cat", "  ")).any()
    assert (line("cat", "épaisse") != line("cat", "class 2")).any()
