"""The time of a whole recipe, summed by stage from the measured steps and stages of `gpu`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

IMAGES = {"train_aug": 10_582, "train": 1_464, "val": 1_449}
"""VOC's images per split."""


@dataclasses.dataclass(frozen=True)
class StageTime:
    """A stage, its time in seconds (None if it is not measured) and where that comes from."""

    name: str
    seconds: float | None
    how: str


def recipe_of(known: Mapping[str, dict[str, Any]]) -> str:
    """The recipe whose stages were measured; "" if none were."""
    found = [
        record["arguments"]["recipe"] for record in known.values() if record["work"] == "stages"
    ]
    return found[0] if found else ""


def stage_seconds(known: Mapping[str, dict[str, Any]]) -> list[StageTime]:
    """All stages of the recipe but its report, in order.

    A training stage takes its compiling and as many steps as it has, each as long as the measured
    one or as its batch takes to be read and augmented, whichever is longer (the input of the first
    stage is measured, and stands for the others). Another stage takes its compiling and the time
    per image that was measured, times its images. A stage that was not measured itself counts as
    one of the same type after the same types that was.
    """
    recipe = recipe_of(known)
    if not recipe:
        return []
    from wsss_jax.pipeline import graph
    from wsss_jax.pipeline.config import load_config
    from wsss_jax.stages.train import Train

    measured: dict[str, tuple[list[float], int]] = {}
    for record in known.values():
        for name, seconds in record.get("stages", {}).items() if record["work"] == "stages" else ():
            # Where a stage was measured with several settings, the fastest counts.
            if name not in measured or seconds[1] < measured[name][0][1]:
                measured[name] = (seconds, record["images"])
    nodes = graph.stages(load_config(recipe))
    types = {node.name: node.type for node in nodes}
    kinds = {n.name: (n.type, *(types[need] for need in n.needs.values())) for n in nodes}
    found = []
    for node in nodes:
        images = sum(IMAGES[split] for split in node.stage.splits())
        if isinstance(node.stage, Train):
            found.append(_training(known, recipe, node.name, node.stage))
        elif node.type != "report":
            same = [name for name in measured if kinds[name] == kinds[node.name]]
            source = node.name if node.name in measured else next(iter(same), None)
            if source is None:
                found.append(StageTime(node.name, None, f"{images:,} images"))
                continue
            (first, again), count = measured[source]
            rate = count / again
            how = f"{images:,} images at {rate:.3g}/s"
            how += "" if source == node.name else f" (as `{source}`)"
            found.append(StageTime(node.name, max(first - again, 0) + images / rate, how))
    return found


def total_seconds(stages: Sequence[StageTime]) -> float | None:
    """The sum, or None if a stage is not measured."""
    seconds = [one.seconds for one in stages]
    return sum(s for s in seconds if s) if seconds and None not in seconds else None


def _training(known: Mapping[str, dict[str, Any]], recipe: str, name: str, stage: Any) -> StageTime:
    steps, size = stage.steps_for(IMAGES["train_aug"]), stage.batch_size
    how = f"{steps:,} steps of {size} images"
    for record in known.values():
        asked = record["arguments"]
        if (
            record["work"] == "step"
            and record["side"] == "jax"
            and record.get("step_seconds")
            and (asked["recipe"], asked["stage"], asked["dtype"]) == (recipe, name, "bfloat16")
        ):
            step = record["step_seconds"] * size / record["batch"]
            if record["batch"] != size:
                how += f" (measured at {record['batch']})"
            rate = known.get("input", {}).get("images_per_second")
            if rate is None:
                return StageTime(name, None, f"{how}, input not measured")
            bound = "the network" if step >= size / rate else "its input"
            compiling = record.get("compile_seconds", 0.0)  # otherwise it was compiled before
            seconds = compiling + steps * max(step, size / rate)
            return StageTime(name, seconds, f"{how}, bound by {bound}")
    return StageTime(name, None, how)
