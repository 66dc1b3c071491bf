"""Maps, masks and probabilities of a classifier's responses."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss_jax.data.images import decode_image
from wsss_jax.data.masks import decode_mask
from wsss_jax.host.dense_crf import PSA
from wsss_jax.host.imagenet_masks import (
    ClassifierTask,
    Wanted,
    class_maps,
    class_probabilities,
    write_classifier_masks,
)
from wsss_jax.host.upsampling import View, ViewMaps

NAMES = ("cat, tabby", "dog", "cow")
SIZE = (48, 64)
CAT, COW = Wanted(NAMES[0], (0,)), Wanted(NAMES[2], (2,))
PATHS = ("mask.png", "overlay.jpg", "map.jpg", "scores.json")


def picture(size: tuple[int, int]) -> np.ndarray:
    """A red square at the left and a blue one at the right, on gray."""
    image = np.full((48, 64, 3), 120, np.uint8)
    image[12:36, 6:26], image[12:36, 38:58] = (220, 30, 30), (30, 30, 220)
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.NEAREST))


def task(size: tuple[int, int] = SIZE, wanted: tuple[Wanted, ...] = (), **more) -> ClassifierTask:
    """The classes 0 and 2 respond where the squares are, in the image and its flipped copy."""
    maps = np.full((3, 6, 8), -1, np.float32)
    maps[0, 2:4, 1:3], maps[2, 2:4, 5:7] = 9, 4
    views = (View(maps, SIZE, False), View(maps[:, :, ::-1], SIZE, True))
    file = io.BytesIO()
    Image.fromarray(picture(size)).save(file, "PNG")
    responses = ViewMaps(size, np.arange(3), views, "direct", False)
    bias = np.array([0, 1, 0], np.float32)
    settings = dict(wanted=wanted, best=2, names=NAMES, crf=None) | more
    return ClassifierTask("x", file.getvalue(), responses, bias, **settings)  # pyright: ignore


def made(folder: Path, one: ClassifierTask) -> tuple[np.ndarray, dict]:
    paths = tuple(folder / name for name in PATHS)
    write_classifier_masks(one, paths)
    assert decode_image(paths[2].read_bytes(), "").shape == picture(one.responses.size).shape
    return decode_mask(paths[0].read_bytes(), "", 3), json.loads(paths[3].read_text())


def test_probabilities_are_those_of_the_mean_response():
    # 4 of 48 places respond: (4 * 9 - 44) / 48, -1 + 1, (4 * 4 - 44) / 48
    logits = np.array([-8 / 48, 0, -28 / 48])
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(class_probabilities(task()), expected, rtol=1e-6)


def test_the_best_classes_without_a_wish(tmp_path: Path):
    mask, scores = made(tmp_path, task())
    assert list(scores["classes"]) == ["dog", "cat, tabby"]
    assert scores["classes"]["cat, tabby"]["index"] == 2
    assert list(scores["most_probable"]) == ["dog", "cat, tabby", "cow"]
    assert sum(scores["most_probable"].values()) == pytest.approx(1)
    assert set(np.unique(mask)) == {0, 2}, "the dog responds nowhere"


@pytest.mark.parametrize("crf", [None, PSA])
def test_masks_of_asked_classes(tmp_path: Path, crf):
    mask, scores = made(tmp_path, task(wanted=(COW, CAT), crf=crf))
    assert mask.shape == SIZE
    truth = np.zeros(SIZE, np.uint8)
    truth[12:36, 6:26], truth[12:36, 38:58] = 2, 1
    # The maps are coarse; the CRF finds the edges.
    assert (0.93 if crf else 0.75) < (mask == truth).mean() < (1 if crf else 0.93)
    assert {c: s["index"] for c, s in scores["classes"].items()} == {"cow": 1, "cat, tabby": 2}
    assert scores["classes"]["cow"]["share"] == pytest.approx((mask == 1).mean())
    assert (scores["height"], scores["width"]) == SIZE


def test_several_classes_as_one(tmp_path: Path):
    """Their probability is the sum, and their map the derivative of the joint logit."""
    both = Wanted("animal", (0, 2))
    one = task(wanted=(both,))
    _, scores = made(tmp_path, one)
    p = class_probabilities(one)
    assert scores["classes"]["animal"]["probability"] == pytest.approx(float(p[0] + p[2]))
    maps = [np.tensordot(p[[0, 2]], view.maps[[0, 2]], 1)[None] for view in one.responses.views]
    views = tuple(v._replace(maps=m) for v, m in zip(one.responses.views, maps, strict=True))
    joint = dataclasses.replace(one.responses, channels=np.arange(1), views=views)
    alone = dataclasses.replace(task(), responses=joint, bias=np.zeros(1, np.float32))
    expected = class_maps(alone, [Wanted("x", (0,))], SIZE)
    np.testing.assert_allclose(class_maps(one, [both], SIZE), expected, atol=1e-5)
    # A class of its own has the map that it has alone.
    np.testing.assert_array_equal(
        class_maps(one, [CAT, both], SIZE)[:1], class_maps(one, [CAT], SIZE)
    )


def test_large_photographs_are_segmented_at_a_smaller_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("wsss_jax.host.dense_crf.MOST_PIXELS", SIZE[0] * SIZE[1])
    size = (4 * SIZE[0], 4 * SIZE[1])
    paths = tuple(tmp_path / name for name in PATHS)
    write_classifier_masks(task(size, (CAT,), crf=PSA), paths)
    mask = decode_mask(paths[0].read_bytes(), "", 3)
    truth = np.zeros(size, np.uint8)
    truth[48:144, 24:104] = 1
    assert mask.shape == size and (mask == truth).mean() > 0.97
    assert decode_image(paths[2].read_bytes(), "").shape[:2] == SIZE, "to look at"
