import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.confusion import confusion_matrix, confusion_scores, counts_of
from wsss_jax.scoring.confusion import class_counts, class_scores, image_miou, threshold_counts


def draw_labels(seed: int, shape: tuple[int, int], num_classes: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes + 1, shape).astype(np.uint8)
    labels[rng.random(shape) < 0.1] = 255
    return labels


def naive_curve(
    scores: np.ndarray,
    keys: np.ndarray,
    truth: np.ndarray,
    thresholds: list[float],
    num_classes: int,
) -> np.ndarray:
    """The published way: the threshold is channel 0 of a dense float32 map, then the argmax."""
    matrices = []
    for threshold in thresholds:
        dense = np.full((num_classes + 1, *truth.shape), -np.inf, np.float32)
        dense[0] = threshold
        dense[keys + 1] = scores
        matrices.append(confusion_matrix(dense.argmax(0), truth, num_classes))
    return np.stack(matrices)


def test_counts_of_a_hand_made_example():
    truth = np.array([[0, 1, 1], [2, 255, 2]], np.uint8)
    prediction = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    expected = [[1, 0, 0], [0, 1, 1], [1, 0, 1]]
    np.testing.assert_array_equal(confusion_matrix(prediction, truth, num_classes=2), expected)
    counts = class_counts(prediction, truth, num_classes=2)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, [[1, 1, 1], [1, 2, 2], [2, 1, 2]])


def test_scores_of_a_hand_made_example():
    #          prediction: bg  a  b   (class b is in the truth only, class c nowhere)
    confusion = np.array([[6, 2, 0, 0], [1, 3, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0]])
    strict = confusion_scores(confusion, "strict")
    np.testing.assert_allclose(strict["iou"], [6 / 9, 3 / 10, 0, 0])
    np.testing.assert_allclose(strict["precision"], [6 / 7, 3 / 9, 0, 0])
    np.testing.assert_allclose(strict["recall"], [6 / 8, 3 / 4, 0, 0])
    np.testing.assert_allclose(strict["fp_rate"], [1 / 9, 6 / 10, 0, 0])
    np.testing.assert_allclose(strict["fn_rate"], [2 / 9, 1 / 10, 1, 0])
    assert strict["miou"] == pytest.approx((6 / 9 + 3 / 10) / 4)
    assert strict["mean_recall"] == pytest.approx(1.5 / 4)
    assert strict["pixel_accuracy"] == pytest.approx(9 / 16)

    present = confusion_scores(confusion, "present")
    assert np.isnan(present["iou"][3])
    assert present["miou"] == pytest.approx((6 / 9 + 3 / 10) / 3)
    assert present["mean_precision"] == pytest.approx((6 / 7 + 3 / 9) / 2)  # b is never predicted
    assert present["mean_recall"] == pytest.approx(1.5 / 3)


def test_an_unknown_protocol_is_refused():
    with pytest.raises(Exception, match="lenient"):
        class_scores(np.zeros((3, 2), np.int64), "lenient")  # pyright: ignore


@pytest.mark.parametrize("protocol", ["strict", "present"])
def test_nothing_to_score_gives_zeros(protocol):
    scores = class_scores(np.zeros((3, 3), np.int64), protocol)
    assert scores["miou"] == 0 and scores["pixel_accuracy"] == 0


def test_class_indices_out_of_range_are_refused():
    zeros = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match="expected prediction up to class index 2, found 3"):
        class_counts(zeros + 3, zeros, num_classes=2)
    with pytest.raises(ValueError, match="expected truth up to class index 2, found 4"):
        class_counts(zeros, zeros + 4, num_classes=2)
    # Where the truth is ignored the prediction does not matter.
    assert class_counts(zeros + 3, zeros + 255, num_classes=2).sum() == 0


def test_counts_do_not_overflow_32_bits():
    confusion = np.full((2, 2), 2**40, np.int64)
    assert confusion_scores(confusion)["iou"][0] == pytest.approx(1 / 3, rel=1e-12)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 9), st.integers(1, 5))
def test_counts_equal_counting_and_sums_to_the_counted_pixels(seed, height, width, num_classes):
    truth = draw_labels(seed, (height, width), num_classes)
    prediction = draw_labels(seed + 1, (height, width), num_classes) % (num_classes + 1)
    counts = class_counts(prediction, truth, num_classes)
    matrix = confusion_matrix(prediction, truth, num_classes)
    np.testing.assert_array_equal(counts, counts_of(matrix))
    assert counts[1].sum() == counts[2].sum() == (truth != 255).sum()
    assert image_miou(counts) == confusion_scores(matrix, "present")["miou"]


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.sampled_from(["strict", "present"]))
def test_scores_follow_a_relabeling(seed, num_classes, protocol):
    rng = np.random.default_rng(seed)
    confusion = rng.integers(0, 50, (num_classes + 1, num_classes + 1))
    confusion *= rng.random(confusion.shape) < 0.4
    relabeled = rng.permutation(num_classes + 1)
    original = confusion_scores(confusion, protocol)
    permuted = confusion_scores(confusion[np.ix_(relabeled, relabeled)], protocol)
    np.testing.assert_array_equal(permuted["iou"], original["iou"][relabeled])
    assert permuted["miou"] == pytest.approx(original["miou"], abs=1e-12)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_iou_is_symmetric_in_prediction_and_truth(seed, num_classes):
    confusion = np.random.default_rng(seed).integers(0, 9, (num_classes + 1, num_classes + 1))
    one, other = confusion_scores(confusion), confusion_scores(confusion.T)
    np.testing.assert_array_equal(one["iou"], other["iou"])
    np.testing.assert_array_equal(one["precision"], other["recall"])
    np.testing.assert_array_equal(one["fp_rate"], other["fn_rate"])


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    present=st.integers(0, 4),
    dtype=st.sampled_from([np.float16, np.float32]),
    coarse=st.booleans(),
    steps=st.integers(1, 12),
)
def test_one_pass_equals_the_loop_over_thresholds(seed, present, dtype, coarse, steps):
    rng = np.random.default_rng(seed)
    num_classes, shape = 4, (7, 6)
    keys = rng.permutation(num_classes)[:present].astype(np.int32)
    scores = rng.random((present, *shape)).astype(dtype)
    thresholds = list(rng.permutation(np.linspace(0, 1, steps)))
    if coarse:  # many exact ties among classes and with the thresholds
        scores = (np.round(scores.astype(np.float32) * 4) / 4).astype(dtype)
        thresholds = [round(4 * t) / 4 for t in thresholds]
    truth = draw_labels(seed, shape, num_classes)
    fast = threshold_counts(scores, keys, truth, thresholds, num_classes)
    matrices = naive_curve(scores, keys, truth, thresholds, num_classes)
    np.testing.assert_array_equal(fast, counts_of(matrices))
    assert (fast[:, 1:].sum(-1) == (truth != 255).sum()).all()


def test_a_score_equal_to_the_threshold_is_background():
    scores = np.full((1, 1, 1), 0.5, np.float32)
    truth = np.ones((1, 1), np.uint8)
    below, equal = threshold_counts(scores, np.array([0]), truth, [0.499, 0.5], num_classes=1)
    np.testing.assert_array_equal(below, [[0, 1], [0, 1], [0, 1]])
    np.testing.assert_array_equal(equal, [[0, 0], [0, 1], [1, 0]])


def test_thresholds_are_compared_in_float32():
    # 0.1 is not exact: float32(0.1) > float64 0.1, and the published programs compare in float32.
    scores = np.full((1, 1, 1), 0.1, np.float32)
    counts = threshold_counts(
        scores, np.array([0]), np.zeros((1, 1), np.uint8), [0.1], num_classes=1
    )
    assert counts[0, 0, 0] == 1


def test_scores_of_a_stack_are_those_of_each():
    stack = np.random.default_rng(0).integers(0, 9, (5, 3, 3))
    together = confusion_scores(stack, "present")
    for index, matrix in enumerate(stack):
        alone = confusion_scores(matrix, "present")
        for name, values in alone.items():
            np.testing.assert_array_equal(together[name][index], values)


def test_classes_beyond_255_are_counted():
    rng = np.random.default_rng(0)
    keys = np.array([4, 300, 254, 255])
    scores = rng.random((4, 9, 8)).astype(np.float32)
    truth = rng.choice([0, 5, 255, 256, 301], (9, 8)).astype(np.uint16)
    counts = threshold_counts(scores, keys, truth, [0.3, 0.8], 400, ignore=65535)
    for found, threshold in zip(counts, np.array([0.3, 0.8], np.float32), strict=True):
        labels = np.where(scores.max(0) > threshold, keys[scores.argmax(0)] + 1, 0)
        parts = (labels[labels == truth], truth, labels)
        expected = [np.bincount(part.ravel(), minlength=401) for part in parts]
        np.testing.assert_array_equal(found, expected)
