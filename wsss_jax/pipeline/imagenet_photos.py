"""Maps and masks of ImageNet's classes in photographs, without any training.

A classifier that is linear in the mean of its features gives class activation maps (Zhou et al.,
CVPR 2016). Where a normalized map exceeds its background, a dense CRF makes a mask of it. Nothing
is trained, so masks cover the telling parts of objects rather than all of them.
"""

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsss_jax import console
from wsss_jax.data.photographs import Photographs, open_photographs
from wsss_jax.files import remove_unfinished
from wsss_jax.host.dense_crf import PSA, memory
from wsss_jax.host.imagenet_masks import (
    THRESHOLD,
    ClassifierTask,
    Wanted,
    write_classifier_masks,
)
from wsss_jax.host.upsampling import ViewMaps
from wsss_jax.inference.multi_scale import MultiScale, NetworkMaps
from wsss_jax.inference.network import network_of
from wsss_jax.models.efficientnet_lite import EfficientNetLite
from wsss_jax.ops.buckets import Batch
from wsss_jax.pipeline.photo_folder import run_all, take_up, tell_of_large, write_scores
from wsss_jax.stages.per_image import ImageWork
from wsss_jax.weights import checkpoint, imagenet_names
from wsss_jax.weights.catalogue import resolve
from wsss_jax.weights.imagenet import CLASSES, ImageNetClassifier, load_classifier

WEIGHTS = "efficientnet_lite0"
_STRIDE = 16
_PIXELS = 384 * 384  # larger photographs are made smaller for the network, which saw 224 x 224
_HOW = MultiScale(scales=(1.0,), flip=True, max_pixels=_PIXELS, sum_on="host")
_BEST = 3
_MULTIPLE = 32
_UNLIKELY = 0.01

FILES = ("masks/{id}.png", "overlays/{id}.jpg", "maps/{id}.jpg", "scores/{id}.json")
"""The files of each photograph."""


def segment_imagenet(
    text: str, images: Sequence[Path], out: Path, crf: bool = True, workers: int = 0
) -> tuple[int, list[str]]:
    """Makes maps and masks of ImageNet's classes in images, and tells their probabilities.

    Args:
      text: the classes (see `find_classes`); "" takes the three best ones of each image.
      images: images and folders.
      out: where the results go: ``masks``, ``overlays``, ``maps``, ``scores`` and ``scores.json``.
      crf: whether a dense CRF refines the masks.
      workers: the number of processes that make masks; 0 for one per core.

    Returns:
      The number of images that have masks, and messages about the images that were left out.

    Raises:
      UserError: a class is unknown or not clear, there are no images, the weights or the names of
        the classes are not installed, or `out` contains masks of something else.
    """
    wanted = imagenet_names.find_classes(text) if text else ()
    names = imagenet_names.distinct_names()
    weights = resolve(WEIGHTS)
    if (out / "masks").is_dir():
        remove_unfinished(out)
    source, damaged = open_photographs(images, names, out)
    made_with = {
        "network": checkpoint.digest(weights)[:16],
        "settings": {"crf": crf, "threshold": THRESHOLD, "stride": _STRIDE, "pixels": _PIXELS},
        "classes": ("background", *(one.name for one in wanted)),
    }
    files = take_up(out, made_with, source)
    tell_of_large(source, _PIXELS)
    classifier = load_classifier(weights, EfficientNetLite(variant=0, output_stride=_STRIDE))
    run_all(source, out, _work(source, classifier, wanted, crf, workers), "masks")
    write_scores(files, out)
    for line in _told(source, out, bool(text)):
        print(line)
    return len(source), [str(error) for error in damaged]


def _work(
    source: Photographs,
    classifier: ImageNetClassifier,
    wanted: tuple[Wanted, ...],
    crf: bool,
    workers: int,
) -> ImageWork[None]:
    network = network_of(classifier.method, classifier.variables, "cam")
    every: Callable[[np.ndarray], np.ndarray] = lambda label: np.arange(CLASSES)  # noqa: E731
    maps = NetworkMaps(source, network, _HOW, every, _unreduced, _MULTIPLE)
    task = functools.partial(
        ClassifierTask,
        bias=classifier.bias,
        wanted=wanted,
        best=_BEST,
        names=imagenet_names.distinct_names(),
        crf=PSA if crf else None,
    )

    def on_device(batch: Batch, jobs: Sequence[Any]) -> Iterator[tuple[int, ClassifierTask]]:
        for job, responses in maps.on_device(batch, jobs):
            assert isinstance(responses, ViewMaps)  # They are summed on the host.
            name = source.ids[job.position]
            yield (
                job.position,
                task(image_id=name, image=job.encoded, responses=responses),
            )

    labels = 1 + (len(wanted) or _BEST)
    return ImageWork(
        files=FILES,
        prepare=maps.prepare,
        plan=maps.plan.batches,
        on_device=on_device,
        sizes=source.sizes,
        finish=write_classifier_masks,
        processes=workers,
        process_bytes=max(memory(size, labels, bounded=True) for size in set(source.sizes)),
    )


def _unreduced(total: Any, inside: Any) -> Any:
    raise AssertionError("maps are summed on the host")


def _told(source: Photographs, out: Path, asked: bool) -> Iterator[str]:
    """Yields a line for each photograph: its classes with their probabilities."""
    for name in source.ids:
        scores = json.loads((out / "scores" / f"{name}.json").read_text())
        chosen = {c: one["probability"] for c, one in scores["classes"].items()}
        yield f"{name}: {_listed(chosen)}"
        if asked and max(chosen.values()) < _UNLIKELY:
            console.note(
                f"{name} hardly shows what was asked for; most probable are"
                f" {_listed(scores['most_probable'])}"
            )


def _listed(probabilities: dict[str, float]) -> str:
    return ", ".join(f"{n.partition(',')[0]} {100 * p:.1f} %" for n, p in probabilities.items())
