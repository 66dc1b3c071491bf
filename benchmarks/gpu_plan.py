"""What `gpu` measures, the most valuable first, and at which sizes."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROGRAMS = {
    1: "ceilings of the card, and training steps beside PyTorch's",
    2: "tests on the device, inference, stages and the demo",
}
SEAM, CAM = "seam_voc", "cam_voc"
FILL_MEMORY = 0.85
"""The share of JAX's memory that the batch `fill` may take, which smaller ones predict."""

STEPS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("jax", dict(recipe=SEAM, dtype="bfloat16", batch=8, traced=3)),
    ("torch", dict(recipe=SEAM, mode="compiled", batch=8)),
    ("torch", dict(recipe=SEAM, mode="float32", batch=8)),
    ("torch", dict(recipe=SEAM, mode="bfloat16", batch=8)),
    ("jax", dict(recipe=SEAM, dtype="bfloat16", batch=32)),
    ("torch", dict(recipe=SEAM, mode="tf32", batch=8)),
    ("jax", dict(recipe=SEAM, dtype="tf32", batch=8)),
    ("torch", dict(recipe=SEAM, mode="compiled", batch=32)),
    ("torch", dict(recipe=SEAM, mode="bfloat16", batch=32)),
    ("jax", dict(recipe=CAM, dtype="bfloat16", batch=16)),
    ("torch", dict(recipe=CAM, mode="compiled", batch=16)),
    ("torch", dict(recipe=CAM, mode="float32", batch=16)),
    ("torch", dict(recipe=CAM, mode="bfloat16", batch=16)),
    ("torch", dict(recipe=CAM, mode="tf32", batch=16)),
    ("jax", dict(recipe=SEAM, dtype="bfloat16", batch=10, stage="train_segmentation")),
    ("jax", dict(recipe=SEAM, dtype="bfloat16", batch=8, stage="train_affinity")),
    ("jax", dict(recipe=SEAM, dtype="bfloat16", batch=64)),
    ("jax", dict(recipe=SEAM, dtype="bfloat16", batch="fill")),
    ("jax", dict(recipe=SEAM, dtype="float32", batch=8)),
    ("jax", dict(recipe="ssenet_voc", dtype="bfloat16", batch=0)),
    ("jax", dict(recipe="pss_voc", dtype="bfloat16", batch=0)),
    ("jax", dict(recipe="ecsnet_voc", dtype="bfloat16", batch=0)),
    ("torch", dict(recipe=SEAM, mode="max-autotune", batch=8)),
)
"""Training steps; batch 0 is the recipe's."""

STAGES: dict[str, tuple[list[str], dict[str, Any], float]] = {
    "maps": (["cam", "threshold", "eval_cam_train", "cam_val", "eval_cam_val"], {}, 180),
    "CRF on the host": (["crf", "eval_crf_24"], {"crf_device": "host"}, 60),
    "CRF on the device": (["crf"], {"crf_device": "device"}, 60),
    "walk": (["walk", "eval_walk"], {}, 120),
    "masks": (["masks_val", "eval_masks_val"], {}, 180),
}
"""The stages of SEAM's recipe that do not train, with settings and seconds. Most need the maps."""

LIMITS = {"jax": 270, "compiled": 180, "max-autotune": 270}
"""Seconds for a training step, most of which go into compiling; 90 for the others."""

TESTS = (
    "tests/losses",
    "tests/methods",
    "tests/ops/test_resize.py",
    "tests/ops/test_pixel_correlation.py",
    "tests/ops/test_max_norm.py",
    "tests/ops/test_prototypes.py",
    "tests/ops/test_erasing.py",
    "tests/ops/test_random_walk.py",
    "tests/ops/test_mean_field.py",
    "tests/ops/test_conv.py",
    "tests/ops/test_depthwise.py",
    "tests/inference/test_multi_scale.py",
    "tests/stages/test_random_walk_stage.py",
    "tests/stages/test_crf_stage.py",
    "tests/training/test_loop.py::test_a_step_moves_against_the_known_gradient",
    "tests/training/test_loop.py::test_frozen_parameters_stay_bit_for_bit",
    "tests/training/test_loop.py::test_a_network_learns_patches",
)
"""The quick tests of what runs on a device. The rest tests files, pages and command lines.

The loop's tests of resuming want the same bits twice, which sums on a GPU do not give.
"""

CPU_TESTS = ("tests/ops/test_conv.py::test_only_wide_kernels_get_a_product_of_matrices",)
"""Tests among them of programs that only CPUs get."""

TOYS = {
    SEAM: "seam_shapes",
    CAM: "cam_shapes",
    "ssenet_voc": "ssenet_shapes",
    "pss_voc": "pss_shapes",
    "ecsnet_voc": "ecsnet_shapes",
}
TORCH_TOYS = {SEAM: SEAM, CAM: "cam_voc_light"}  # PyTorch has no twins of the tiny networks


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Something to measure in a process of its own.

    Attributes:
      name: what results are known by.
      program: the number of `PROGRAMS`.
      side: whose script it is: ``jax``, ``stages``, ``torch`` or ``whole``.
      work: the name of the function in the script.
      arguments: its arguments.
      limit: the most seconds that it may take.
      environment: variables that it needs.
    """

    name: str
    program: int
    side: str
    work: str
    arguments: Mapping[str, Any]
    limit: float
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def at_batch(self, batch: int) -> "Measurement":
        """The same with a batch that has become known."""
        return dataclasses.replace(self, arguments={**self.arguments, "batch": batch})


def plan(toy: bool, out: Path) -> list[Measurement]:
    """All measurements in order; those of stages keep their folders beside `out`."""
    folder = str(out.resolve().with_suffix(".work"))
    turn, short = (dict(turn=0.01 if toy else seconds) for seconds in (1.0, 0.2))
    large = short | (dict(side=64, megabytes=1) if toy else dict(side=8192, megabytes=4000))
    first = [
        Measurement("environment", 1, "whole", "environment", {}, 30),
        Measurement("ceilings jax", 1, "jax", "ceilings", large, 90),
        Measurement("ceilings torch", 1, "torch", "ceilings", large, 60),
    ]
    steps = [_step(side, arguments | turn, toy, folder) for side, arguments in STEPS]
    images = dict(folder=folder, images=2 if toy else 96, longest=48 if toy else 500)
    inference = dict(recipe=TOYS[SEAM] if toy else SEAM, dtype="bfloat16", **images, **short)
    twin = {**inference, "recipe": TORCH_TOYS[CAM] if toy else SEAM}
    tests = dict(names=TESTS[2:3] if toy else TESTS, deselected=CPU_TESTS)
    maps, *others = (
        Measurement(f"stages {what}", 2, "stages", "stages", {**inference, **stages}, limit)
        for what, (names, settings, limit) in STAGES.items()
        for stages in (dict(names=names, settings=settings),)
    )
    read = {key: value for key, value in inference.items() if key not in ("dtype", "turn")}
    second = [
        maps,
        Measurement("input", 2, "stages", "training_input", read, 30, {"JAX_PLATFORMS": "cpu"}),
        Measurement("inference torch", 2, "torch", "inference", twin, 60),
        Measurement("tests on the device", 2, "whole", "tests", tests, 240, _TESTS),
        *others,
        Measurement("the demo", 2, "whole", "demo", dict(toy=toy), 240),
    ]
    everything = [*first, *steps, *second]
    # Toys test what is done, on machines of any speed.
    return [dataclasses.replace(one, limit=900) for one in everything] if toy else everything


_TESTS = {
    # Products and convolutions of float32 in TF32 have errors of 1e-3, for which no tolerance of
    # the tests is made. What TF32 does to a step is measured with the ceilings of its own.
    "JAX_DEFAULT_MATMUL_PRECISION": "highest",
    # Programs of tests run once: trying algorithms for them would take most of the time.
    "XLA_FLAGS": "--xla_gpu_autotune_level=0",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # several processes share the card
}


def _step(side: str, arguments: dict[str, Any], toy: bool, folder: str) -> Measurement:
    recipe, batch = arguments["recipe"], arguments["batch"]
    stage = arguments.setdefault("stage", "train")
    words = [side, recipe, *([stage] if stage != "train" else [])]
    words += [arguments.get("mode") or arguments["dtype"], f"batch {batch or 'published'}"]
    if toy:
        names = TORCH_TOYS if side == "torch" else TOYS
        small = 2 if side == "jax" or recipe == CAM else 1
        arguments |= dict(recipe=names[recipe], crop=32)
        arguments |= {} if batch == "fill" else dict(batch=small)
    if side == "jax":
        arguments["folder"] = folder
    limit = LIMITS.get(arguments.get("mode", side), 90)
    return Measurement(" ".join(words), 1, side, "step", arguments, limit)


def filling_batch(known: Mapping[str, dict[str, Any]], one: Measurement) -> int:
    """The batch of `one` that fills the card, from the peaks of two others; 0 if unknown.

    The largest multiple of 8 (or any number below 8) whose memory, which grows linearly, stays
    within `FILL_MEMORY` of the card.
    """
    what = ("recipe", "stage", "dtype")
    found = sorted(
        (record["batch"], record["peak_gib"])
        for record in known.values()
        if record["status"] == "finished"
        and record.get("device_gib")
        and all(record["arguments"].get(key) == one.arguments[key] for key in what)
    )
    if len(found) < 2 or found[-1][0] == found[0][0]:
        return 0
    (small, low), (large, high) = found[0], found[-1]
    per_image = (high - low) / (large - small)
    if per_image <= 0:
        return 0
    card = next(r["device_gib"] for r in known.values() if r.get("device_gib"))
    batch = int((FILL_MEMORY * card - low) / per_image) + small
    return batch // 8 * 8 if batch >= 8 else batch
