"""Evaluators: their figures against scores by hand, when they run, the best weights, resuming."""

import dataclasses
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import PyTree

from tests.reference.golden_weights import drawn_variables
from tests.toys.toy_training import CLASSES, CROP, Masked, Patches, Toy, same, tiny_cam, train
from wsss_jax.data.images import decode_image
from wsss_jax.data.masks import decode_mask
from wsss_jax.data.source import Source
from wsss_jax.errors import Interrupted, UserError
from wsss_jax.methods.base import Method
from wsss_jax.methods.segmentation import Segmentation
from wsss_jax.methods.variables import init_variables
from wsss_jax.models.heads.aspp import Aspp
from wsss_jax.models.tiny import Tiny
from wsss_jax.training.evaluators import miou
from wsss_jax.training.evaluators.base import Evaluate, Evaluator
from wsss_jax.training.evaluators.miou import Miou
from wsss_jax.training.metrics import read_metrics
from wsss_jax.weights.npz import load_weights


@dataclasses.dataclass(frozen=True)
class Sizes(Masked):
    """Masked patches, cut to several sizes."""

    def __getitem__(self, index: int) -> Any:
        record = super().__getitem__(index)
        height, width = self.sizes[index]
        cut = {}
        for key in ("image", "segmentation"):
            value: Any = record[key]
            array: Any = cv2.imdecode(np.frombuffer(value, np.uint8), cv2.IMREAD_UNCHANGED)
            cut[key] = cv2.imencode(".png", array[:height, :width])[1].tobytes()
        return {**record, **cut, "size": (height, width)}

    @property
    def sizes(self) -> list[tuple[int, int]]:
        return [(CROP - 3 * (i % 3), CROP - 5 * (i % 2)) for i in range(self.count)]


def upsampled(low: np.ndarray, size: tuple[int, int], corners: bool) -> np.ndarray:
    """[h, w, k] at `size`, bilinearly: pixel by pixel."""

    def places(n: int, m: int) -> np.ndarray:
        if corners:
            return np.arange(m) * (n - 1) / max(m - 1, 1)
        return np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n - 1)

    out = low.astype(np.float64)
    for axis, m in enumerate(size):
        at = places(out.shape[axis], m)
        below = np.floor(at).astype(int)
        above = np.minimum(below + 1, out.shape[axis] - 1)
        share = (at - below).reshape([-1 if a == axis else 1 for a in range(3)])
        out = np.take(out, below, axis) * (1 - share) + np.take(out, above, axis) * share
    return out


def miou_of(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    ious = []
    for c in range(CLASSES + 1):
        inter = sum(((p == c) & (t == c)).sum() for p, t in pairs)
        union = sum((((p == c) | (t == c)) & (t != 255)).sum() for p, t in pairs)
        ious.append(inter / union if union else 0.0)
    return float(np.mean(ious))


def network(output: str) -> tuple[Method, Any]:
    method: Method = tiny_cam()
    if output == "logits":
        method = Segmentation(
            num_classes=CLASSES, backbone=Tiny(width=8), head=Aspp(dilations=(1, 2))
        )
    variables = drawn_variables(method.model(), method.backbone, seed=0)
    if output == "logits":  # or one class would be best everywhere
        seen = [low for low, *_ in outputs(method, variables, Sizes(), output, 5)]
        mean = np.concatenate([low.reshape(-1, CLASSES + 1) for low in seen]).mean(0)
        head = variables["params"]["head"]["classifier_0"]
        head["bias"] = head["bias"] - mean
    return method, variables


def outputs(method: Method, variables: Any, source: Any, output: str, count: int) -> Any:
    """(maps of an image on its own, mask, label) of the first images."""
    for index in range(count):
        record = source[index]
        image = decode_image(record["image"], "image")
        valid = jnp.ones((1, *image.shape[:2]), bool)
        maps = method.predict(variables, jnp.asarray(image[None]), valid)[output][0]
        mask = decode_mask(record["segmentation"], "mask", CLASSES)
        yield np.asarray(maps), mask, record["label"]


@pytest.mark.parametrize("upsample", ["corners", "direct"])
def test_miou_of_logits_is_that_of_each_image_alone(upsample: Any):
    method, variables = network("logits")
    source: Any = Sizes(count=7)
    evaluator = Miou(every=1, output="logits", upsample=upsample, images=5)
    found = evaluator.prepare(method, source)(variables)
    pairs = [
        (upsampled(low, truth.shape, upsample == "corners").argmax(-1), truth)
        for low, truth, _ in outputs(method, variables, source, "logits", 5)
    ]
    assert len({p.shape for p, _ in pairs}) > 2 and len(np.unique(pairs[0][0])) > 1
    assert found == {"miou": pytest.approx(miou_of(pairs), abs=2e-3)}


def test_counts_of_two_processes_may_exceed_32_bits(monkeypatch: pytest.MonkeyPatch):
    method, variables = network("logits")
    source: Any = Sizes(count=4)
    evaluate = Miou(every=1, output="logits").prepare(method, source)
    expected = evaluate(variables)
    count = miou.class_counts
    # This factor of all counts changes no score. Without their upper bits, it would.
    monkeypatch.setattr(miou, "class_counts", lambda *those: count(*those) * (2**31 + 1))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    # This is how JAX places what it gathers.
    gathered = lambda own: np.stack([jax.device_put(own)] * 2)  # noqa: E731
    monkeypatch.setattr(miou.multihost_utils, "process_allgather", gathered)
    assert evaluate(variables) == pytest.approx(expected)


def test_miou_of_maps_takes_the_best_threshold_and_the_images_classes():
    method, variables = network("cam")
    source: Any = Sizes(count=6)
    found = Miou(every=1, output="cam").prepare(method, source)(variables)
    seen = list(outputs(method, variables, source, "cam", 6))

    def at(threshold: float) -> float:
        pairs = []
        for low, truth, label in seen:
            maps = np.maximum(upsampled(low, truth.shape, True), 0) * (label > 0)
            scores = maps / (maps.max((0, 1)) + 1e-5)
            high = scores.max(-1)
            pairs.append((np.where(high > threshold, scores.argmax(-1) + 1, 0), truth))
        return miou_of(pairs)

    by_hand = [at(level / 100) for level in range(100)]
    assert found["miou"] == pytest.approx(max(by_hand), abs=2e-3)
    assert at(found["threshold"]) == pytest.approx(max(by_hand), abs=2e-3)


def test_what_cannot_be_evaluated_is_refused():
    method, _ = network("cam")
    bare: Any = Patches()
    with pytest.raises(UserError, match="expected output to be one of cam, which the method"):
        Miou(every=1, output="logits").check(method)
    with pytest.raises(UserError, match=r"ground-truth masks of the split val, .* for patch_0"):
        Miou(every=1, output="cam").check_source(bare)
    with pytest.raises(UserError, match="expected every above 0 with keep_best"):
        Miou(keep_best=True)
    with pytest.raises(UserError, match="expected images of 0 or more, found -1"):
        Miou(images=-1)
    with pytest.raises(UserError, match=r"evaluators\.val\.name to be one of miou, .* 'mioo'"):
        Evaluator.from_config(dict(name="mioo"), "train.evaluators.val")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distance(Evaluator):
    """How close the head is to a place, for a toy whose parameters are known."""

    figure: ClassVar[str] = "closeness"

    def check(self, method: Method) -> None:
        del method

    def check_source(self, source: Source) -> None:
        del source

    def prepare(self, method: Method, source: Source) -> Evaluate:
        del method, source

        def evaluate(variables: PyTree) -> dict[str, float]:
            head = np.asarray(variables["params"]["head"], np.float64)
            return {"closeness": -float(np.abs(head - np.array([0.9, 0.1, -0.2])).sum())}

        return evaluate


def closeness(path: Path) -> float:
    shapes = init_variables(Toy(), 0)
    params, others = load_weights(path, *shapes)
    figures = Distance().prepare(Toy(), Masked())({"params": params, **others})  # pyright: ignore
    return figures["closeness"]


def test_evaluations_come_every_so_many_steps_and_the_best_weights_are_kept(tmp_path: Path):
    evaluators = {"seeds": Distance(every=2, keep_best=True), "never": Distance()}
    state, figures = train(tmp_path, 9, evaluators=evaluators, checkpoint_every=4)
    plain, _ = train(tmp_path / "plain", 9, checkpoint_every=4)
    assert same(state.params, plain.params)  # evaluating changes nothing
    found = figures["evaluations"]
    assert list(found) == ["seeds"]
    assert [one["step"] for one in found["seeds"]] == [2, 4, 6, 8, 9]
    rows = {row["step"]: row for row in read_metrics(tmp_path)}
    assert [s for s, row in rows.items() if "seeds/closeness" in row] == [2, 4, 6, 8, 9]
    assert all("loss" in row for row in rows.values())  # the lines of a step are one row
    best = max(found["seeds"], key=lambda one: one["closeness"])
    assert figures["best_step"] == best["step"] == figures["best"]["step"]
    assert figures["best"]["closeness"] == best["closeness"]
    assert "CHOSEN BY THE GROUND TRUTH of 12 images of val" in figures["best"]["selection"]
    assert closeness(tmp_path / "weights_best.npz") == pytest.approx(best["closeness"], abs=1e-6)
    assert len({one["closeness"] for one in found["seeds"]}) == 5
    assert figures.keys() >= {"steps", "seconds"}
    _, without = train(tmp_path / "never", 4, evaluators={"never": Distance()})
    assert not without.keys() & {"evaluations", "best", "best_step"}
    assert not (tmp_path / "never" / "weights_best.npz").exists()


@pytest.mark.parametrize("step", [3, 5, 8])
def test_an_interrupted_run_finds_the_same(step: int, tmp_path: Path):
    evaluators = {"seeds": Distance(every=2, keep_best=True)}
    _, whole = train(tmp_path / "whole", 9, evaluators=evaluators, checkpoint_every=100)
    at: dict[int, Callable] = {step - 1: lambda: signal.raise_signal(signal.SIGTERM)}
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", 9, evaluators=evaluators, checkpoint_every=100, at=at)
    _, again = train(tmp_path / "cut", 9, evaluators=evaluators, checkpoint_every=100)
    for key in ("evaluations", "best", "best_step"):
        assert again[key] == whole[key]
    values = [closeness(tmp_path / run / "weights_best.npz") for run in ("whole", "cut")]
    assert values[0] == values[1]


def test_best_weights_of_steps_that_are_repeated_do_not_count(tmp_path: Path):
    """A run that was killed after its best step, before the next checkpoint."""
    evaluators = {"seeds": Distance(every=1, keep_best=True)}
    _, whole = train(tmp_path / "whole", 6, evaluators=evaluators, checkpoint_every=3)
    train(tmp_path / "cut", 3, evaluators=evaluators, checkpoint_every=3)
    best = tmp_path / "cut" / "weights_best.json"
    best.write_text(json.dumps({"step": 5, "evaluator": "seeds", "closeness": 100.0}))
    _, again = train(tmp_path / "cut", 6, evaluators=evaluators, checkpoint_every=3)
    assert again["best"]["closeness"] < 100
    later = [one for one in whole["evaluations"]["seeds"] if one["step"] > 3]
    assert again["best_step"] == max(later, key=lambda one: one["closeness"])["step"]
    assert again["evaluations"] == whole["evaluations"]
