"""Training from what other stages made: CRF results, then the walk with what was learned; masks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.stages.test_random_walk_stage import (
    KEYS,
    METHOD,
    SETTINGS,
    Images,
    context,
    files,
    inputs,
    scores_of,
)
from tests.toys.sections import run_section, stage_of
from wsss_jax.data.affinity_labels import AffinityLabels
from wsss_jax.data.formats.crf_files import write_crf
from wsss_jax.data.mask_labels import GroundTruth, MaskLabels
from wsss_jax.errors import UserError
from wsss_jax.files import write_json
from wsss_jax.stages.random_walk import RandomWalk
from wsss_jax.stages.train import Train

__all__ = ["inputs"]  # a fixture


def training(**changes: Any) -> ConfigDict:
    augment = dict(crop=96, long_side=(), flip=0.5, brightness=0.1, contrast=0.1, saturation=0.1)
    section = dict(
        type="train",
        split="train",
        batch_size=2,
        steps=3,
        affinity_alphas=(4, 24),
        method=METHOD,
        optimizer=dict(lr=0.01, momentum=0.0, weight_decay=0.0, schedule="constant"),
        augment=dict(augment, hue=0.0),
        num_threads=1,
    )
    return ConfigDict({**section, **changes})


def write_crfs(folder: Path) -> dict[str, Path]:
    for index, name in enumerate(Images.ids):
        maps = scores_of(index)
        planes = np.concatenate([1 - maps.sum(0, keepdims=True), maps]).clip(0, 1)
        path = folder / "crf" / f"{name}.npz"
        write_crf(path, np.array(KEYS[index], int), {4.0: planes, 24.0: planes})
    return {"labels": folder}


@pytest.mark.slow
def test_the_chain_from_crf_results_to_masks(inputs: dict[str, Path], tmp_path: Path):
    folder = tmp_path / "train"
    metrics = run_section(Train, context(folder), training(), write_crfs(tmp_path / "crf"))
    assert metrics["steps"] == 3 and metrics["trainable_parameters"] == metrics["parameters"]
    write_json(folder / "config.json", {"method": METHOD})
    out = tmp_path / "walk"
    run_section(RandomWalk, context(out), ConfigDict(SETTINGS), {**inputs, "checkpoint": folder})
    assert len(files(out)) == 18
    with pytest.raises(UserError, match="expected affinity_alphas and the need labels"):
        run_section(Train, context(tmp_path / "b"), training(affinity_alphas=()), {})


CAM = {"name": "cam", "backbone": {"name": "tiny"}}
MASKED = {"name": "segmentation", "backbone": {"name": "tiny"}}


def targets(
    settings: dict[str, Any], inputs: dict[str, Path], method: Any = METHOD
) -> dict[str, Any]:
    """What crops learn in a training section with these needs, by the keys of the batch."""
    settings = {"affinity_alphas": (), "needs": {name: "other" for name in inputs}} | settings
    stage = stage_of(Train, training(**settings, method=method))
    spec = stage.method_for(4).batch_spec()
    found = stage.crop_targets(spec, Images(), inputs)
    assert tuple(found) == spec.targets
    return found


def test_labels_are_asked_for_before_training(tmp_path: Path):
    needs = write_crfs(tmp_path)
    settings = {"affinity_alphas": (4, 24)}
    labels = targets(settings, needs)["affinity_label"]
    assert isinstance(labels, AffinityLabels)
    assert (labels.alphas, labels.stride) == ((4.0, 24.0), 8)
    assert targets(settings, needs, CAM) == {}
    with pytest.raises(
        UserError, match=r"expected affinity_alphas and .* found no affinity_alphas"
    ):
        targets({}, needs)
    with pytest.raises(UserError, match=r"expected affinity_alphas and .* found no need labels"):
        targets(settings, {})
    (tmp_path / "crf" / "image_4.npz").unlink()
    with pytest.raises(UserError, match=r"for each of 6 ids .* found none for 1: image_4"):
        targets(settings, needs)


def test_confidences_are_asked_for_before_training(inputs: dict[str, Path], tmp_path: Path):
    folder = tmp_path / "walk"
    run_section(RandomWalk, context(folder), ConfigDict(SETTINGS), inputs)
    needs = {"masks": folder}
    settings = {"least_confidence": 0.6}
    labels = targets(settings, needs, MASKED)["segmentation"]
    assert isinstance(labels, MaskLabels)
    assert (labels.least, labels.confidence) == (0.6, folder / "confidence")
    plain = targets({}, needs, MASKED)["segmentation"]
    assert isinstance(plain, MaskLabels) and plain.confidence is None
    with pytest.raises(UserError, match=r"least_confidence in 0…1, found 60: change it"):
        targets({"least_confidence": 60}, needs, MASKED)
    own = targets({"ground_truth": True}, {}, MASKED)["segmentation"]
    assert own == GroundTruth(4)
    with pytest.raises(UserError, match=r"expected one origin of the masks .*, found none"):
        targets({}, {}, MASKED)
    with pytest.raises(UserError, match=r"expected one origin of the masks .*, found both"):
        targets({"ground_truth": True}, needs, MASKED)
    for wrong, given in (({"ground_truth": True}, {}), ({}, needs)):
        with pytest.raises(UserError, match="expected no masks for a method that does not learn"):
            targets(wrong, given, CAM)
    (folder / "confidence" / "image_4.png").unlink()
    with pytest.raises(UserError, match=r"confidence \(\.png\) for each of 6 ids .* image_4"):
        targets(settings, needs, MASKED)
