import dataclasses

import cv2
import grain
import numpy as np
import orbax.checkpoint as ocp
import pytest

from wsss_jax.data.augment import Augment
from wsss_jax.data.batch_spec import BatchSpec, LocalCrops, StrongView
from wsss_jax.data.loader import training_batches
from wsss_jax.data.mask_labels import GroundTruth
from wsss_jax.data.masks import encode_mask
from wsss_jax.data.source import Record
from wsss_jax.errors import UserError

SMALL = Augment(crop=24, long_side=(20, 40))
MASKS = BatchSpec(segmentation=True)
VIEWS = BatchSpec(segmentation=True, strong=StrongView(), local_crops=LocalCrops(count=3, size=10))


@dataclasses.dataclass(frozen=True)
class Pictures:
    """`count` noisy PNGs with masks, in memory."""

    count: int
    broken: int = -1
    mask_size: tuple[int, int] = (20, 30)
    with_masks: bool = True
    classes: tuple[str, ...] = ("cat", "dog", "cow")
    digest: str = "pictures"

    @property
    def ids(self) -> list[str]:
        return [f"picture_{i}" for i in range(self.count)]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        return [(20, 30)] * self.count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Record:
        rng = np.random.default_rng(index)
        image = cv2.imencode(".png", rng.integers(0, 256, (20, 30, 3)).astype(np.uint8))[
            1
        ].tobytes()
        mask = np.full(self.mask_size, index % 4, np.uint8)
        label = np.arange(3) == index % 3
        return Record(
            id=f"picture_{index}",
            image=image[: len(image) // 2] if index == self.broken else image,
            size=(20, 30),
            label=label.astype(np.float32),
            segmentation=encode_mask(mask) if self.with_masks else None,
        )


def batches(
    count: int = 20,
    batch_size: int = 8,
    augment: Augment = SMALL,
    epochs: int | None = 2,
    **options,
):
    source = options.pop("source", Pictures(count))
    # A batch that does not fit is refused before steps count.
    steps = None if epochs is None else max(epochs * len(source) // max(batch_size, 1), 1)
    options = {"seed": 3, "steps": steps, **options}
    if options.get("spec", BatchSpec()).segmentation:
        options = {"targets": {"segmentation": GroundTruth(3)}, **options}
    return training_batches(source, batch_size=batch_size, augment=augment, **options)


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_labels_and_masks_belong_to_the_images():
    batch = next(batches(spec=MASKS))
    np.testing.assert_array_equal(batch["label"].argmax(1), batch["index"] % 3)
    for mask, valid, index in zip(
        batch["segmentation"], batch["valid"], batch["index"], strict=True
    ):
        np.testing.assert_array_equal(mask, np.where(valid, index % 4, 255))
    assert "segmentation" not in next(batches())


def test_every_epoch_shows_every_image_once_in_another_order():
    order = np.concatenate([batch["index"] for batch in batches(24, epochs=3)]).reshape(3, 24)
    for epoch in order:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(24))
    assert (order[0] != order[1]).any() and (order[1] != order[2]).any()
    assert (order[0] != np.arange(24)).any()


def test_lengths():
    # Batches run across the epochs' border: 2 · 20 images are 5 batches of 8, 3 · 20 are 7.
    assert len(list(batches(epochs=2))) == 5
    assert len(list(batches(epochs=3))) == 7
    assert len(list(batches(epochs=None, steps=9))) == 9
    endless = batches(epochs=None)
    assert len([next(endless) for _ in range(12)]) == 12


def test_an_image_is_augmented_anew_in_every_epoch():
    seen: dict[int, set[bytes]] = {}
    for batch in batches(8, epochs=4):
        for index, image in zip(batch["index"], batch["image"], strict=True):
            seen.setdefault(int(index), set()).add(image.tobytes())
    assert all(len(images) == 4 for images in seen.values())
    # Two images of one batch draw differently too, even if they are the same file.
    batch = next(batches(epochs=1))
    assert len({valid.tobytes() for valid in batch["valid"]}) > 4


def test_a_seed_says_everything():
    for a, b in zip(batches(), batches(), strict=True):
        assert_equal(a, b)
    other = next(batches(seed=4))
    assert (next(batches())["index"] != other["index"]).any()


@pytest.mark.parametrize("options", [dict(num_threads=0), dict(num_threads=3, prefetch=1)])
def test_threads_change_nothing(options):
    one = batches(num_threads=1, spec=VIEWS)
    for a, b in zip(one, batches(spec=VIEWS, **options), strict=True):
        assert_equal(a, b)


def test_further_views_leave_the_rest_of_a_batch_as_it_is():
    for plain, more in zip(batches(spec=MASKS), batches(spec=VIEWS), strict=True):
        assert_equal(plain, {name: more[name] for name in plain})


def test_further_views_differ_by_image_and_epoch():
    seen: dict[int, set[bytes]] = {}
    for batch in batches(8, epochs=4, spec=VIEWS):
        for index, boxes in zip(batch["index"], batch["local_box"], strict=True):
            seen.setdefault(int(index), set()).add(boxes.tobytes())
    assert len(set().union(*seen.values())) == 32


def test_a_strong_view_shows_what_the_image_shows():
    """Without any change of color it is the image itself; with some, padding stays zero."""
    still = StrongView(jitter_p=0.0, grayscale_p=0.0, blur_p=0.0)
    plain = dataclasses.replace(SMALL, jitter_p=0.0, flip=0.5)
    for batch in batches(augment=plain, spec=BatchSpec(strong=still)):
        np.testing.assert_array_equal(batch["image_strong"], batch["image"])
    for batch in batches(augment=plain, spec=VIEWS):
        assert (batch["image_strong"] != batch["image"]).any((1, 2, 3)).mean() > 0.5
        assert not batch["image_strong"][~batch["valid"]].any()


def test_the_colors_of_views_do_not_build_upon_each_other():
    """A strong view starts from the image as it is: the jitter of the first view is not in it."""
    strong = BatchSpec(strong=StrongView())
    plain = dataclasses.replace(SMALL, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    for one, other in zip(batches(spec=strong), batches(spec=strong, augment=plain), strict=True):
        assert (one["image"] != other["image"]).any()
        np.testing.assert_array_equal(one["image_strong"], other["image_strong"])


@pytest.mark.parametrize("spec", [MASKS, VIEWS])
@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_together_have_the_batches_of_one(process_count, spec):
    parts = [
        batches(spec=spec, epochs=3, process_index=i, process_count=process_count)
        for i in range(process_count)
    ]
    whole = batches(spec=spec, epochs=3)
    for single, *pieces in zip(whole, *parts, strict=True):
        joined = {name: np.concatenate([p[name] for p in pieces]) for name in single}
        assert_equal(joined, single)


def test_a_state_continues_bit_for_bit_in_another_iterator():
    first = batches()
    for _ in range(2):
        next(first)
    state = first.get_state()
    following = list(first)
    assert len(following) == 3
    resumed = batches()
    next(resumed)
    resumed.set_state(state)
    for a, b in zip(following, resumed, strict=True):
        assert_equal(a, b)


def test_state_travels_in_an_orbax_composite(tmp_path):
    first = batches()
    for _ in range(3):
        next(first)
    weights = {"w": np.arange(3.0)}
    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        manager.save(
            3,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(weights),  # pyright: ignore[reportCallIssue]
                data=grain.checkpoint.CheckpointSave(first),  # pyright: ignore[reportCallIssue]
            ),
        )
        following = list(first)  # the iterator goes on while the checkpoint is written
        manager.wait_until_finished()
        resumed = batches()
        manager.restore(
            3,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(weights),  # pyright: ignore[reportCallIssue]
                data=grain.checkpoint.CheckpointRestore(resumed),  # pyright: ignore[reportCallIssue]
            ),
        )
    assert len(following) == 2
    for a, b in zip(following, resumed, strict=True):
        assert_equal(a, b)


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(count=0), "empty split"),
        (dict(count=4), r"batch size of 1 to 4 .* found 8"),
        (dict(batch_size=0), "found 0"),
        (dict(process_count=3), "divisible by the 3 processes, found 8"),
    ],
)
def test_impossible_batches_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        batches(**options)


@pytest.mark.parametrize(
    "spec, targets",
    [
        (MASKS, {}),
        (BatchSpec(affinity_stride=8), {"segmentation": GroundTruth(3)}),
        (BatchSpec(), {"segmentation": GroundTruth(3)}),
    ],
)
def test_targets_are_those_that_are_asked_for(spec, targets):
    with pytest.raises(ValueError, match="expected the targets"):
        batches(spec=spec, targets=targets)


@pytest.mark.parametrize("num_threads", [0, 2])
@pytest.mark.parametrize(
    "source, words",
    [
        (Pictures(8, broken=5), "picture_5"),
        (Pictures(8, with_masks=False), "a mask for every image, found none for picture_"),
        (Pictures(8, mask_size=(20, 29)), r"height and width, \(20, 30\), found \(20, 29\)"),
    ],
)
def test_a_bad_record_is_named(source, words, num_threads):
    stream = batches(source=source, spec=MASKS, num_threads=num_threads)
    with pytest.raises(UserError, match=words):
        next(stream)
