"""What verify finds, in data sets with one flaw each."""

import io
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.preparing.sources import picture
from wsss_jax.data.masks import encode_mask
from wsss_jax.prepare import main
from wsss_jax.preparing.findings import near_duplicates
from wsss_jax.preparing.verify import fingerprint, verify

CAT, DOG = 1, 2


def smooth(seed: int, size: tuple[int, int] = (60, 48)) -> np.ndarray:
    """A picture without noise, of which smaller and compressed copies look the same."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    return cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)


class Mine:
    """A prepared folder with eleven cats and eleven dogs, each with a mask, and two of neither."""

    def __init__(self, folder: Path):
        self.folder = folder
        source = folder.parent / "photos"
        names = [f"{row}/{n}.png" for row in ("Cat", "Dog") for n in range(11)] + ["a.png", "b.png"]
        for seed, name in enumerate(names):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(smooth(seed)).save(source / name)
        option = ["--unlabeled=background", "--val=0", "--labels=folders", "--copy"]
        assert main(["x.py", "folder", str(source), f"--out={folder}", *option]) == 0
        self.ids = [name.removesuffix(".png") for name in sorted(names)]
        for name in self.ids:
            self.mask(name, {"Cat": CAT, "Dog": DOG}.get(name.partition("/")[0], 0))

    def image(self, name: str) -> Path:
        return self.folder / f"JPEGImages/{name}.png"

    def mask(self, name: str, value: int | np.ndarray, mode: str = "P") -> None:
        path = self.folder / f"SegmentationClass/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        mask = np.zeros((48, 60), np.uint8) if isinstance(value, int) else value
        if isinstance(value, int):
            mask[5:30, 5:30] = value
        if mode == "P":
            path.write_bytes(encode_mask(mask))
        else:
            Image.fromarray(mask).convert(mode).save(path)

    def lists(self, split: str, *ids: str) -> None:
        (self.folder / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(ids))

    def found(self) -> dict[str, list[str]]:
        """The findings by title; those to mend begin with !."""
        findings = verify(self.folder).findings
        return {f"{'!' if one.mend else ''}{one.title}": list(one.names) for one in findings}


@pytest.fixture
def mine(tmp_path: Path) -> Mine:
    return Mine(tmp_path / "mine")


def test_a_sound_data_set(mine: Mine, capsys: pytest.CaptureFixture[str]):
    capsys.readouterr()
    assert mine.found() == {}
    capsys.readouterr()
    assert main(["x.py", "verify", str(mine.folder)]) == 0
    told = capsys.readouterr().out
    assert "24 images, 24 masks" in told and "nothing to mend" in told
    assert re.search(r"1 Cat +11 train\n", told)
    page = (mine.folder / "verify.html").read_text()
    assert page.count('<img src="data:image/jpeg;base64,') == 6
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_files_that_cannot_be_read(mine: Mine, capsys: pytest.CaptureFixture[str]):
    mine.image("Cat/1").write_bytes(mine.image("Cat/1").read_bytes()[:200])
    (mine.folder / "SegmentationClass/Dog/2.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert mine.found() == {
        "!photographs that cannot be read": ["Cat/1"],
        "!masks that cannot be read": ["Dog/2"],
    }
    assert main(["x.py", "verify", str(mine.folder)]) == 1
    assert "2 to mend" in capsys.readouterr().out


def test_masks_and_labels_that_disagree(mine: Mine):
    mine.mask("Cat/1", DOG)
    mine.mask("a", CAT)
    assert mine.found() == {
        "!masks with a class that the label lacks": ["Cat/1 (Dog)", "a (Cat)"],
        "labels with a class that the mask lacks": ["Cat/1 (Cat)"],
    }


@pytest.mark.parametrize("kind", ("colors", "blurred", "values", "size"))
def test_encodings_of_masks(kind: str, mine: Mine):
    mask = np.zeros((48, 60), np.uint8)
    mask[5:30, 5:30] = DOG
    title, name = {
        "colors": ("masks with colors in place of indices", "Dog/3"),
        "blurred": ("masks with blurred edges", "Dog/3 ("),
        "values": ("masks with values that are no class", "Dog/3 (7)"),
        "size": ("masks of another size than their photographs", "Dog/3 (48 x 60, not 60 x 48)"),
    }[kind]
    mode = "L"
    if kind == "colors":
        mode = "RGB"
    elif kind == "blurred":
        mask = cv2.GaussianBlur(mask * 100, (9, 9), 3)
    elif kind == "values":
        mask[6] = 7
    else:
        mask = np.ascontiguousarray(mask.T)
    mine.mask("Dog/3", mask, mode)
    ((found, (told,)),) = mine.found().items()
    assert found == f"!{title}" and told.startswith(name)


def test_masks_of_0_and_255(mine: Mine):
    for name in mine.ids:
        mine.mask(name, 0 if "/" not in name else 255)
    assert len(mine.found().pop("!masks, and none of them has a class")) == 24
    mine.mask("Cat/0", CAT)
    assert len(mine.found().pop("!masks of 0 and 255 alone")) == 21


def test_duplicates(mine: Mine):
    mine.image("Dog/1").write_bytes(mine.image("Cat/1").read_bytes())
    small = Image.fromarray(cv2.resize(smooth(0), (45, 36), interpolation=cv2.INTER_AREA))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=70)
    mine.image("Cat/10").write_bytes(file.getvalue())
    for name in ("Cat/10", "Cat/0"):
        (mine.folder / f"SegmentationClass/{name}.png").unlink()
    mine.lists("val", "Dog/1")
    mine.lists("train", *(name for name in mine.ids if name != "Dog/1"))
    assert mine.found() == {
        "!equal photographs with different labels": ["Cat/1 = Dog/1"],
        "!equal photographs in train and in val or test": ["Cat/1 = Dog/1"],
        "similar photographs": ["Cat/0 = Cat/10"],
    }


def test_classes(mine: Mine):
    mine.lists("train", *(name for name in mine.ids if name.startswith("Cat")))
    found = mine.found()
    assert found["!classes without an image in train"] == ["Dog"]
    assert found["!classes of every image in train"] == ["Cat"]
    mine.lists("train", "a", "b")
    assert mine.found() == {"!images of train, and none of them has a class": ["a", "b"]}
    mine.lists("train", *mine.ids[2:])
    assert mine.found() == {"classes with fewer than 10 images in train": ["Cat (9)"]}


def test_labels_and_lists_that_lack_something(mine: Mine):
    labels = mine.folder / "labels.csv"
    labels.write_text("".join(labels.read_text().splitlines(keepends=True)[:-1]))
    assert mine.found() == {"!images without a label": ["Dog/9"]}
    mine.lists("val", "nowhere")
    assert "!val.txt cannot be followed" in mine.found()
    (mine.folder / "ImageSets/Segmentation/train.txt").unlink()
    assert main(["x.py", "verify", str(mine.folder)]) == 2


def test_near_duplicates_are_those_of_at_most_three_bits():
    rng = np.random.default_rng(0)
    values = [int(v) for v in rng.integers(0, 2**63, 60)]
    for position, flipped in ((0, (1, 20, 40)), (1, (0, 17, 33, 50)), (2, (63,))):
        values.append(values[position] ^ sum(1 << bit for bit in flipped))
    expected = {
        (a, b)
        for a in range(len(values))
        for b in range(a + 1, len(values))
        if (values[a] ^ values[b]).bit_count() <= 3
    }
    assert set(near_duplicates(values)) == expected >= {(0, 60), (2, 62)}
    assert list(near_duplicates([0, 0, 2**64 - 1])) == []  # plain areas look all the same
    assert fingerprint(np.array(picture(1))) != fingerprint(np.array(picture(2)))
