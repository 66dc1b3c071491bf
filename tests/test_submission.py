"""The archive for VOC's server: what is in it, and what the checker refuses."""

import dataclasses
import io
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from tests.toys.sections import run_section
from wsss_jax import submission
from wsss_jax.data.formats.voc_submission import check_archive, write_archive
from wsss_jax.data.masks import VOC_PALETTE, encode_mask
from wsss_jax.data.source import Record
from wsss_jax.errors import UserError
from wsss_jax.stages.base import Context
from wsss_jax.stages.submit import Submit

IDS = ["2008_000001", "2008_000002", "2009_000003"]
SIZE = (6, 9)
FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"


def mask(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 21, size).astype(np.uint8)


def archive(path: Path, **changes: bytes | None) -> Path:
    """An archive of the three masks; `changes` replace (bytes) or drop (None) the files of ids."""
    files = {name: encode_mask(mask(i)) for i, name in enumerate(IDS)}
    files = {name: content for name, content in (files | changes).items() if content is not None}
    write_archive(path, files.items(), "comp6")
    return path


def other_palette() -> bytes:
    image = Image.fromarray(mask(0), "L").convert("P")
    image.putpalette(np.roll(VOC_PALETTE, 1, axis=0).tobytes())
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_an_archive_has_the_servers_layout_and_the_same_bytes_again(tmp_path: Path):
    path = archive(tmp_path / "a.tar.gz")
    with tarfile.open(path) as content:
        assert content.getnames() == [f"{FOLDER}/{name}.png" for name in IDS]
        file = content.extractfile(f"{FOLDER}/{IDS[1]}.png")
        assert file is not None
        image = Image.open(file)
        assert (
            image.mode == "P"
            and (image.getpalette() or [])[:63] == VOC_PALETTE[:21].ravel().tolist()
        )
        np.testing.assert_array_equal(np.asarray(image), mask(1))
    check_archive(path, IDS, lambda _: SIZE)
    assert path.read_bytes() == archive(tmp_path / "b.tar.gz").read_bytes()


@pytest.mark.parametrize(
    "changes, words",
    [
        ({IDS[1]: None}, "2008_000002: missing"),
        ({"2010_1": encode_mask(mask(0))}, "2010_1: not in the list"),
        ({IDS[0]: encode_mask(mask(0, (9, 6)))}, "expected 9×6 pixels, found 6×9"),
        ({IDS[0]: encode_mask(np.full(SIZE, 255, np.uint8))}, "classes 0 to 20, found 255"),
        ({IDS[0]: encode_mask(mask(0), palette=False)}, "PNG with a palette, found PNG of mode L"),
        ({IDS[0]: other_palette()}, "VOC palette, found other colors"),
        ({IDS[0]: encode_mask(mask(0))[:60]}, "expected a readable image, found a damaged one"),
    ],
)
def test_the_checker_names_what_is_wrong(tmp_path: Path, changes: dict, words: str):
    path = archive(tmp_path / "a.tar.gz", **changes)
    with pytest.raises(UserError, match=words):
        check_archive(path, IDS, lambda _: SIZE)


def test_the_checker_refuses_other_places_and_other_files(tmp_path: Path):
    path = archive(tmp_path / "a.tar.gz")
    with pytest.raises(UserError, match=r"comp5_test_cls/<id>\.png"):
        check_archive(path, IDS, competition="comp5")
    (tmp_path / "cut.tar.gz").write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"whole \.tar\.gz"):
        check_archive(tmp_path / "cut.tar.gz", IDS)
    with pytest.raises(UserError, match="found none: check the path"):
        check_archive(tmp_path / "none.tar.gz", IDS)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = archive(tmp_path / "a.tar.gz")
    (tmp_path / "test.txt").write_text("\n".join(IDS))
    for name in IDS:
        cv2.imwrite(str(tmp_path / f"{name}.jpg"), np.zeros((*SIZE, 3), np.uint8))
    command = ["submission.py", str(path), "--list", str(tmp_path / "test.txt")]
    command += ["--images", str(tmp_path)]
    assert submission.main(command) == 0
    assert "3 masks, fit for the server\n" in capsys.readouterr().out
    cv2.imwrite(str(tmp_path / f"{IDS[2]}.jpg"), np.zeros((3, 3, 3), np.uint8))
    assert submission.main(command) == 2
    assert capsys.readouterr().err.count("\n") == 1


class Images:
    ids = IDS
    sizes = [SIZE] * len(IDS)
    classes = tuple(f"class{i}" for i in range(20))
    digest = "images"

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Record:
        data = cv2.imencode(".png", np.zeros((*SIZE, 3), np.uint8))[1].tobytes()
        label = np.zeros(20, np.float32)
        return Record(id=IDS[index], image=data, size=SIZE, label=label, segmentation=None)


@dataclasses.dataclass(frozen=True)
class Given(Context):
    def source(self, split: str) -> Any:
        return Images()


def run_stage(folder: Path) -> dict[str, Any]:
    stage_dir = folder / "submit"
    stage_dir.mkdir(exist_ok=True)
    ctx = Given(ConfigDict(), folder, "submit", stage_dir)
    config = ConfigDict(dict(type="submit", split="test"))
    return run_section(Submit, ctx, config, {"pred": folder / "predict"})


def test_stage(tmp_path: Path):
    masks = tmp_path / "predict" / "masks"
    masks.mkdir(parents=True)
    for seed, name in enumerate(IDS):
        # Grey indices: the archive gets the palette all the same.
        (masks / f"{name}.png").write_bytes(encode_mask(mask(seed), palette=False))
    result = run_stage(tmp_path)
    path = tmp_path / "submit" / "submission.tar.gz"
    assert result == {"images": 3, "archive": path.name, "bytes": path.stat().st_size}
    check_archive(path, IDS, lambda _: SIZE)
    path.unlink()
    (masks / f"{IDS[2]}.png").write_bytes(encode_mask(np.full(SIZE, 255, np.uint8)))
    with pytest.raises(UserError, match="found 255"):
        run_stage(tmp_path)
    (masks / f"{IDS[2]}.png").unlink()
    with pytest.raises(UserError, match="none for 1: 2009_000003"):
        run_stage(tmp_path)
    assert not path.exists()
