"""Masks of a segmentation network, multi-scale and flipped: ``masks/<id>.png``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from wsss_jax.context import Context
from wsss_jax.crf_work import crf_settings
from wsss_jax.data.source import Source
from wsss_jax.host_memory import keep_freed_memory
from wsss_jax.inference import MultiScale, chunks, image_sizes, load_network, summed_maps
from wsss_jax.logit_masks import LogitTask, write_logit_mask
from wsss_jax.needs import Needs, expect
from wsss_jax.ops.dense_crf import CrfSettings
from wsss_jax.workers import in_processes, worker_count

MAKES = ("masks/",)


def check(config: ConfigDict, needs: Needs) -> None:
    """Refuses what cannot work; see `wsss_jax.needs`."""
    expect(needs, "checkpoint", "weights.npz")
    _settings(config.to_dict())


def _settings(values: dict[str, Any]) -> tuple[MultiScale, CrfSettings | None]:
    how = MultiScale(**{k: v for k, v in values.items() if k in MultiScale.__dataclass_fields__})
    one = CrfSettings(iterations=1)  # one update unless told otherwise (PSA, SEAM)
    return how, crf_settings(values, one) if values.get("crf", False) else None


def run(ctx: Context, config: ConfigDict, inputs: dict[str, Path]) -> dict[str, Any]:
    """Runs the stage; see `wsss_jax.stages`.

    Takes the network of the need ``checkpoint``; the class with the highest mean logit over scales
    and flips wins. Settings: ``split``; the fields of `MultiScale`; ``crf``: a dense CRF over all
    classes on the softmax of the mean logits (False), with ``gaussian`` (sxy, weight),
    ``bilateral`` (sxy, srgb, weight) and ``iterations``, by default those of PSA's and SEAM's
    network, and ``workers`` (processes for it; 0: one for each core).
    """
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    settings: dict[str, Any] = config.to_dict()
    source = ctx.source(settings["split"])
    folder = ctx.stage_dir / "masks"
    folder.mkdir(exist_ok=True)
    how, crf = _settings(settings)
    mine = range(ctx.process_index, len(source), ctx.process_count)
    left = {i for i in mine if not (folder / f"{source.ids[i]}.png").exists()}
    with ctx.progress(
        len(mine), f"masks of {settings['split']}", initial=len(mine) - len(left)
    ) as bar:
        tasks = _tasks(source, mine, left, how, inputs["checkpoint"], folder, crf)
        if crf is not None:
            workers = worker_count(int(settings.get("workers", 0)), len(left))
            for _ in in_processes(write_logit_mask, tasks, workers):
                bar.update()
        else:
            for task in tasks:
                write_logit_mask(task)
                bar.update()
    return {
        "images": len(source),
        "scales": list(how.scales),
        "flip": how.flip,
        "crf": crf is not None,
    }


def _tasks(
    source: Source,
    mine: range,
    left: set[int],
    how: MultiScale,
    checkpoint: Path,
    folder: Path,
    crf: CrfSettings | None,
) -> Iterator[LogitTask]:
    """The missing images with their mean logits, inferred when they are asked for."""
    sizes = image_sizes(source)
    buckets = how.buckets(set(sizes))
    network = load_network(checkpoint, len(source.classes), "logits")
    everything = np.arange(len(source.classes) + 1)
    looks = len(how.scales) * (2 if how.flip else 1)
    for chunk in chunks(mine, sizes):
        missing = left.intersection(chunk)
        if not missing:
            continue
        maps = summed_maps(source, chunk, lambda _: everything, network, how, buckets)
        for index, _, total in maps:
            if index in missing:
                name = source.ids[index]
                image = source[index]["image"] if crf is not None else b""
                target = folder / f"{name}.png"
                yield LogitTask(name, total / np.float32(looks), target, image, crf)
