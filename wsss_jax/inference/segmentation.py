"""Masks of many images by a segmentation network, multi-scale and flipped, with a CRF or without.

Images are run in a few padded shapes, as in `wsss_jax.inference.multi_scale`.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wsss_jax.data.source import Source
from wsss_jax.errors import UserError
from wsss_jax.host.dense_crf import CrfSettings
from wsss_jax.host.logit_masks import LogitTask, write_logit_mask
from wsss_jax.host.workers import in_processes, worker_count
from wsss_jax.inference.multi_scale import (
    MultiScale,
    chunks,
    load_network,
    summed_maps,
)
from wsss_jax.progress import Progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskSettings(MultiScale, CrfSettings):
    """How a segmentation network's masks are made.

    Attributes:
      crf: whether a dense CRF over all classes follows, on the softmax of the mean logits.
      iterations: updates of the CRF's mean field (PSA and SEAM: 1).
      workers: processes for the CRF; 0: one for each core.
      known_labels: whether masks are restricted to the classes of their image's label, and
        background.
    """

    crf: bool = False
    iterations: int = 1
    workers: int = 0
    known_labels: bool = False


def write_network_masks(
    source: Source,
    positions: range,
    checkpoint: Path,
    folder: Path,
    settings: MaskSettings,
    progress: Progress,
) -> None:
    """Writes ``<id>.png`` of the images that have none in `folder`.

    The class with the highest mean logit over scales and flips wins.

    Args:
      source: images, and as many classes as the network has.
      positions: which of them; the same ones after an interruption give the same bytes.
      checkpoint: folder of the network's training stage.
      folder: of the masks.
      settings: see `MaskSettings`.
      progress: told of every mask.

    Raises:
      UserError: no such network, a damaged image, or no labels to keep masks to.
    """
    left = {i for i in positions if not (folder / f"{source.ids[i]}.png").exists()}
    if not left:
        return
    if settings.known_labels and not any(source[i]["label"].any() for i in range(len(source))):
        raise UserError(
            "expected labels of the images for known_labels=True, found none: choose a split that"
            " has them, or known_labels=False"
        )
    tasks = _tasks(source, positions, left, settings, checkpoint, folder)
    if not settings.crf:
        for task in tasks:
            write_logit_mask(task)
            progress.update()
        return
    for _ in in_processes(write_logit_mask, tasks, worker_count(settings.workers, len(left))):
        progress.update()


def _tasks(
    source: Source,
    positions: range,
    left: set[int],
    settings: MaskSettings,
    checkpoint: Path,
    folder: Path,
) -> Iterator[LogitTask]:
    """The missing images with their mean logits, inferred when they are asked for."""
    crf = settings.crf_alone() if settings.crf else None
    sizes = source.sizes
    buckets = settings.buckets(set(sizes))
    network = load_network(checkpoint, len(source.classes), "logits")
    views = len(settings.scales) * (2 if settings.flip else 1)

    def classes(label: np.ndarray) -> np.ndarray:
        shown = np.flatnonzero(label) if settings.known_labels else np.arange(len(label))
        return np.concatenate([[0], shown + 1])

    for chunk in chunks(positions, sizes):
        missing = left.intersection(chunk)
        if not missing:
            continue
        maps = summed_maps(source, chunk, classes, network, settings, buckets)
        for index, kept, total in maps:
            if index in missing:
                name = source.ids[index]
                image = source[index]["image"] if crf is not None else b""
                target = folder / f"{name}.png"
                yield LogitTask(name, total / np.float32(views), kept, target, image, crf)
