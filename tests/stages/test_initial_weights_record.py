"""What a training stage records about the weights that it starts from."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import traverse_util
from ml_collections import ConfigDict

from tests.reference.drawn_networks import CLASSES, Images, Trained, context
from tests.reference.golden_weights import drawn_arrays
from tests.toys.sections import run_section, stage_of
from wsss_jax.errors import UserError
from wsss_jax.methods.variables import variable_shapes
from wsss_jax.pipeline.record import _file_digest
from wsss_jax.stages.base import Need
from wsss_jax.stages.train import Train
from wsss_jax.training.optimizer import parameter_count


def test_results_say_what_matched(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "before").mkdir()
    before = Trained(tmp_path / "before", "segmentation", "tiny")
    params, variables = variable_shapes(before.method)
    arrays = drawn_arrays({"params": params, **variables}, before.method.backbone, seed=0)
    of_backbone = {n: array for n, array in arrays.items() if n.startswith(("stem", "layer_"))}
    file = tmp_path / "published.npz"
    extra = {"classifier.weight": np.zeros((10, 32), np.float32)}
    wrapped: dict[str, Any] = {f"module.{name}": a for name, a in (of_backbone | extra).items()}
    np.savez(file, **wrapped)
    augment = dict(crop=32, long_side=(), flip=0.5, brightness=0.0, contrast=0.0, saturation=0.0)
    description = json.loads((tmp_path / "before/config.json").read_text())["method"]
    section = dict(
        split="train",
        method=dict(name="cam", backbone=description["backbone"]),
        batch_size=2,
        steps=1,
        init_weights=str(file),
        optimizer=dict(lr=0.01, momentum=0.0, weight_decay=0.0, schedule="constant"),
        augment=dict(augment, hue=0.0),
        num_threads=1,
    )
    # A file of several networks is refused before the run, unless the setting names one.
    both = {f"teacher.{name}": array for name, array in wrapped.items()}
    both |= {f"student.{name}": -array for name, array in of_backbone.items()}
    np.savez(tmp_path / "both.npz", **both)
    recorded = [_file_digest(Train.from_config(section), "init_weights")]
    for name in ("both.npz,part=student", "both.npz,part=teacher", "both.npz"):
        start = Train.from_config(section | {"init_weights": str(tmp_path / name)})
        recorded.append(_file_digest(start, "init_weights"))
        if "part" in name:
            start.check_files(CLASSES)
        else:
            with pytest.raises(UserError, match="unexpected"):
                start.check_files(CLASSES)
    assert len(set(recorded)) == 4, "another part is another start"
    section["init_weights"] = f"{tmp_path / 'both.npz'},part=teacher"
    stage = context(tmp_path / "train", Images((40, 40), (33, 47), (48, 30)))
    metrics = run_section(Train, stage, ConfigDict(section), {"backbone": tmp_path / "before"})

    published, other = metrics["initial_weights"]
    digest = hashlib.sha256((tmp_path / "both.npz").read_bytes()).hexdigest()
    assert published == {
        "file": "both.npz",
        "format": "npz",
        "sha256": digest,
        "notes": ["removed the prefix teacher.", "removed the prefix module."],
        "matched": len(of_backbone),
        "resized": [],
        "unexpected": ["classifier.weight"],
        "catalogue": "",
    }
    assert other["stage"] == "before" and other["part"] == "backbone"
    weights = (tmp_path / "before/weights.npz").read_bytes()
    assert other["sha256"] == hashlib.sha256(weights).hexdigest()

    counts = metrics["parameters_of"]
    assert counts["backbone"] == {"trained": parameter_count(params["backbone"]), "frozen": 0}
    assert counts["fc8"] == {"trained": 32 * CLASSES, "frozen": 0}
    assert sum(sum(one.values()) for one in counts.values()) == metrics["parameters"]
    told = capsys.readouterr().out
    assert told.count(f"sha256 {digest[:16]}") == 1
    assert "1 left out: classifier.weight" in told
    assert f"(backbone {counts['backbone']['trained']:,}, fc8 96)" in told


def test_a_method_that_adds_a_layer_starts_from_a_network_without_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "cam").mkdir()
    before = Trained(tmp_path / "cam", "cam", "tiny")
    backbone = json.loads((tmp_path / "cam/config.json").read_text())["method"]["backbone"]
    still = dict(flip=0.5, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    section = dict(
        split="train",
        method=dict(name="recam", backbone=backbone),
        batch_size=2,
        steps=1,
        optimizer=dict(lr=0.0),
        augment=dict(still, crop=32, long_side=()),
        num_threads=1,
    )
    images = Images((40, 40), (33, 47), (48, 30))
    first = context(tmp_path / "once", images)
    metrics = run_section(Train, first, ConfigDict(section), {"init": tmp_path / "cam"})
    (start,) = metrics["initial_weights"]
    assert (start["stage"], start["part"], start["drawn"]) == ("cam", "", ["fc8_softmax"])
    assert "all weights but fc8_softmax from stage cam" in capsys.readouterr().out
    with np.load(tmp_path / "once/weights.npz") as file:
        once = dict(file)
    for path, value in _flat(before.weights).items():
        np.testing.assert_array_equal(once[path], value)
    added = once["params/fc8_softmax/kernel"]
    assert added.shape == (1, 1, 32, CLASSES) and added.std() > 0

    # Its own network has all layers, whose values are not those that would be drawn.
    np.savez(tmp_path / "once/weights.npz", **once | {"params/fc8_softmax/kernel": added + 1})
    again = context(tmp_path / "again", images)
    metrics = run_section(Train, again, ConfigDict(section), {"init": tmp_path / "once"})
    (start,) = metrics["initial_weights"]
    assert start["drawn"] == []
    assert "all weights from stage once" in capsys.readouterr().out
    with np.load(tmp_path / "again/weights.npz") as file:
        np.testing.assert_array_equal(file["params/fc8_softmax/kernel"], added + 1)


def _flat(weights: dict[str, Any]) -> dict[str, Any]:
    return dict(traverse_util.flatten_dict(weights, sep="/"))


@pytest.mark.parametrize(
    ("theirs", "mine", "refused"),
    [
        ("cam", "recam", False),
        ("ssenet", "recam", False),  # It has the network of CAM.
        ("recam", "recam", False),
        ("recam", "cam", True),
        ("seam", "recam", True),
        ("segmentation", "recam", True),
    ],
)
def test_the_other_network_may_lack_only_what_the_method_adds(
    theirs: str, mine: str, refused: bool
):
    common = dict(split="train", batch_size=2, steps=1, optimizer=dict(lr=0.1))
    before, after = (
        stage_of(Train, dict(common, method=dict(name=name, backbone=dict(name="tiny", width=8))))
        for name in (theirs, mine)
    )
    if refused:
        with pytest.raises(UserError, match=r"expected needs\.init to name a stage whose network"):
            after.check({"init": Need("before", before)})
    else:
        after.check({"init": Need("before", before)})
