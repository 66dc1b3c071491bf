import hashlib
import itertools
from collections import Counter

import numpy as np
import pytest

from wsss_jax.data import shapes
from wsss_jax.data.images import decode_image
from wsss_jax.data.masks import decode_mask
from wsss_jax.data.sets import shapes as shapes_set
from wsss_jax.data.sets.base import DataSettings
from wsss_jax.data.shapes.compose import HOMES, LONGEST, MOST_HEAD, SEEN_HEAD, SHORTEST
from wsss_jax.data.shapes.draw import Limb, Oval, Pose, distance, distances
from wsss_jax.data.shapes.scenes import SCENES
from wsss_jax.data.shapes.toys import BODIES, PATTERNS, Coat, Toy, build, headless
from wsss_jax.errors import UserError

CLASSES = shapes.CLASSES


def options(folder, **changed) -> DataSettings:
    chosen = dict(builder="shapes", data_dir=str(folder), train_images=12, val_images=6, size=64)
    return DataSettings.from_config({**chosen, **changed}, "data")


def toy(seed: int, name: str | None, scale: float, size: int) -> Toy:
    """A creature in the middle of a picture, the same one at every scale."""
    rng = np.random.default_rng(seed)
    body = list(BODIES.values())[seed % len(BODIES)](rng) if name else headless(rng)
    pose = Pose(0.5 * size, 0.5 * size, scale, 10 * seed, seed % 2 == 1)
    return build(rng, name, body, Coat(seed % 6, PATTERNS[seed % 6]), pose, size)


def full(toy: Toy, part: np.ndarray, size: int) -> np.ndarray:
    whole = np.zeros((size, size), bool)
    whole[toy.area] = part
    return whole


@pytest.fixture(scope="module")
def compositions():
    return [shapes.composition(index, "train", 0, 128) for index in range(96)]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return options(tmp_path_factory.mktemp("shapes")).open("train")


def test_the_pictures_are_the_same_everywhere():
    # Another value means other pictures: results of before no longer compare, so the edition in
    # shapes.py has to be counted up with it.
    digest = hashlib.sha256()
    for index, split in itertools.product(range(6), shapes.SPLITS):
        image, mask = shapes.render(index, split, 7, 96)
        digest.update(image.tobytes() + mask.tobytes())
    assert digest.hexdigest() == "126c98bbfc4d0e550dd22550bdf59f77f2425d40587e668e0218e4a86bdaff2c"


def test_render_does_not_depend_on_what_was_drawn_before():
    first = shapes.render(4, "val", 3, 64)
    shapes.render(5, "train", 1, 64)
    again = shapes.render(4, "val", 3, 64)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    for other in (("train", 3), ("val", 4)):
        assert not np.array_equal(first[0], shapes.render(4, *other, 64)[0])


@pytest.mark.parametrize("size", [32, 100, 256])
def test_every_size(size):
    image, mask = shapes.render(2, "train", 0, size)
    assert image.shape == (size, size, 3) and mask.shape == (size, size)
    assert 0 < mask.max() <= len(CLASSES) and image.std() > 10


def test_mask_is_what_creatures_show(compositions):
    for drawn in compositions:
        expected = np.zeros_like(drawn.mask)
        for creature in drawn.creatures:
            assert not expected[creature.body].any()  # nothing is seen twice
            expected[creature.body] = CLASSES.index(creature.name) + 1
        np.testing.assert_array_equal(drawn.mask, expected)


def test_every_class_in_a_mask_shows_its_head(compositions):
    for index, drawn in enumerate(compositions):
        assert drawn.creatures and CLASSES[index % 6] in {item.name for item in drawn.creatures}
        for creature in drawn.creatures:
            head, body = np.count_nonzero(creature.head), np.count_nonzero(creature.body)
            assert 0 < head <= MOST_HEAD * body
            assert not (creature.head & ~creature.body).any()
            # A third of the smallest head is a few pixels of a face, still.
            assert head >= SEEN_HEAD * 3.0 * (0.1 * SHORTEST * 128) ** 2


def test_heads_are_small_parts(compositions):
    shares = [
        np.count_nonzero(creature.head) / np.count_nonzero(creature.body)
        for drawn in compositions
        for creature in drawn.creatures
    ]
    assert np.mean(shares) < 0.27
    assert np.percentile(shares, 80) < 0.33


def test_bodies_and_coats_are_shared_by_the_classes():
    drawn = [shapes.composition(index, "train", 0, 48) for index in range(200)]
    creatures = [creature for one in drawn for creature in one.creatures]
    for name in CLASSES:
        coats = [creature.coat for creature in creatures if creature.name == name]
        palettes = Counter(coat.palette for coat in coats)
        assert len(palettes) >= 4 and len({coat.pattern for coat in coats}) >= 4
        assert palettes.most_common(1)[0][1] < 0.7 * len(coats)


def test_classes_are_balanced(compositions):
    pictures = Counter(
        name for drawn in compositions for name in {item.name for item in drawn.creatures}
    )
    assert set(pictures) == set(CLASSES)
    assert max(pictures.values()) < 1.6 * min(pictures.values())


def test_places_go_with_classes_but_do_not_give_them_away(compositions):
    homes = [
        drawn.scene == HOMES[CLASSES[index % len(CLASSES)]]
        for index, drawn in enumerate(compositions)
    ]
    assert 0.2 < np.mean(homes) < 0.5  # 0.35 ± 3 standard errors
    for scene in SCENES:
        names = {item.name for drawn in compositions if drawn.scene == scene
                 for item in drawn.creatures}  # fmt: skip
        assert len(names) >= 3


def test_pictures_vary(compositions):
    counts = Counter(len(drawn.creatures) for drawn in compositions)
    assert set(counts) == {1, 2, 3} and counts[1] > counts[3]
    assert any(len({item.name for item in drawn.creatures}) > 1 for drawn in compositions)
    lengths = [item.length for drawn in compositions for item in drawn.creatures]
    assert min(lengths) < 1.15 * SHORTEST and max(lengths) > 0.85 * LONGEST[0]
    assert LONGEST[0] / SHORTEST > 2.3
    share = np.mean([np.mean(drawn.mask > 0) for drawn in compositions])
    assert 0.1 < share < 0.3  # about as on photographs


@pytest.mark.parametrize("name", [*CLASSES, None])
def test_a_pixel_belongs_to_the_figure_at_its_center(name):
    seed = CLASSES.index(name) if name else 3
    coarse, fine = toy(seed, name, 60.0, 80), toy(seed, name, 480.0, 640)
    mask, detailed = full(coarse, coarse.body, 80), full(fine, fine.body, 640)
    # The four small pixels around the center of a large one; at the very edge they may disagree.
    around = np.stack([detailed[3 + y :: 8, 3 + x :: 8] for y in (0, 1) for x in (0, 1)])
    sure = around.all(0) | ~around.any(0)
    assert np.mean(sure) > 0.98
    np.testing.assert_array_equal(mask[sure], around[0][sure])


@pytest.mark.parametrize("name", CLASSES)
def test_where_the_mask_says_inside_the_figure_gives_most_of_the_color(name):
    figure = toy(CLASSES.index(name), name, 60.0, 80)
    pictures = [np.full((3, 80, 80), gray, np.float32) for gray in (0.0, 200.0)]
    for picture in pictures:
        figure.cast(picture)
    # What is left of the difference between two backgrounds is the background's share.
    share = (pictures[1] - pictures[0])[0] / 200.0
    inside = full(figure, figure.body, 80)
    assert share[inside].max() <= 0.5 + 1e-4
    # The figure's shadow darkens what is left by two fifths or less.
    assert share[~inside].min() >= 0.5 * 0.6 - 1e-4
    assert inside.any() and figure.head.any() and not (figure.head & ~figure.body).any()


def test_a_headless_thing_has_no_head():
    assert not toy(1, None, 60.0, 80).head.any()


def test_distance_to_parts():
    x, y = (
        np.array([[0.0, 3.0, 0.0, 6.0]], np.float32),
        np.array([[0.0, 0.0, 3.0, 4.0]], np.float32),
    )
    disc, limb, oval = Oval(0, 0, 2, 2), Limb(0, 0, 3, 0, 1, 1), Oval(0, 0, 3, 1)
    found = distances([disc, limb, oval], x, y)
    np.testing.assert_allclose(found[0, 0, 1:], [1.0, 1.0, 52**0.5 - 2.0], rtol=1e-6)
    np.testing.assert_allclose(found[1, 0], [-1.0, -1.0, 2.0, 4.0], rtol=1e-6)
    assert found[2, 0, 0] < 0 and abs(found[2, 0, 1]) < 1e-6 and found[2, 0, 2] > 0
    for row, part in zip(found, (disc, limb, oval), strict=True):
        np.testing.assert_allclose(row, distance(part, x, y), rtol=1e-6)


def test_records_hold_the_pictures_and_their_labels(source):
    assert source.classes == CLASSES and len(source) == len(source.ids) == 12
    for index in range(12):
        record = source[index]
        assert record["id"] == source.ids[index] and record["segmentation"] is not None
        image, mask = shapes.render(index, "train", 0, 64)
        np.testing.assert_array_equal(decode_image(record["image"], "image"), image)
        np.testing.assert_array_equal(decode_mask(record["segmentation"], "mask", 6), mask)
        expected = [float((mask == number + 1).any()) for number in range(6)]
        assert record["label"].dtype == np.float32 and record["label"].tolist() == expected


def test_prepared_records_are_used_again(tmp_path, monkeypatch):
    first = options(tmp_path).open("val")

    def refuse(*_):
        raise AssertionError("drawn again")

    monkeypatch.setattr(shapes_set, "render", refuse)
    again = options(tmp_path).open("val")
    assert again.digest == first.digest and again[0]["image"] == first[0]["image"]
    # Another option is another data set.
    with pytest.raises(AssertionError, match="drawn again"):
        options(tmp_path, seed=1).open("val")


def test_the_digest_follows_the_records(tmp_path):
    def digest(folder: str, **changed) -> str:
        few = options(tmp_path / folder, train_images=2, **changed)
        return few.open("train").digest

    first = digest("here")
    assert digest("elsewhere") == first
    assert len({first, digest("here", seed=1), digest("here", size=48)}) == 3


@pytest.mark.parametrize(
    ("change", "split", "message"),
    [
        (dict(), "test", r"\(train, val\), found 'test'"),
        (dict(train_images=0), "train", r"data: expected train_images from 1 to 1000000, found 0"),
        (dict(size=8), "val", r"data: expected size from 32 to 1024, found 8"),
        (dict(size="large"), "val", "expected data.size to be a whole number, found 'large'"),
        (dict(seed=-1), "val", r"data: expected seed from 0 to 4294967295, found -1"),
        (dict(sise=64), "val", "data.sise is not a setting of Shapes; did you mean size"),
    ],
)
def test_wrong_options_are_named(tmp_path, change, split, message):
    with pytest.raises(UserError, match=message):
        options(tmp_path, **change).open(split)
    assert not list(tmp_path.iterdir())
