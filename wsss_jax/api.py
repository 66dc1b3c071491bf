"""The Python interface: networks of finished runs, dense CRF and scores, with NumPy in and out.

    import wsss_jax

    run = wsss_jax.load("runs/light")
    result = run.predict("photo.jpg")
    result.mask       # uint8 [h, w]: 0 is the background, k is result.classes[k]
    result.overlay()  # uint8 [H, w, 3], to look at
    run.cam("photo.jpg", labels=["cat"]).maps  # float32 [1, h, w] in 0…1

Everything that is not named here or in a recipe is private and may change.
"""

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from wsss_jax.data.class_names import VOC_CLASSES
from wsss_jax.data.known_classes import multi_hot
from wsss_jax.data.masks import IGNORE, decode_mask, encode_mask
from wsss_jax.errors import UserError, nearest, refuse_addresses
from wsss_jax.files import atomic_write, read_bytes
from wsss_jax.host.dense_crf import CrfSettings, crf_of, score_unary
from wsss_jax.host.logit_masks import LogitTask, fitting_size, probabilities_and_best
from wsss_jax.host.upsampling import ViewMaps
from wsss_jax.inference.in_memory import Images, Photo, decoded, in_groups
from wsss_jax.inference.multi_scale import NetworkMaps
from wsss_jax.inference.network import Network, load_network
from wsss_jax.pipeline.finished_run import Trained, find_network
from wsss_jax.scoring.confusion import Protocol
from wsss_jax.scoring.score_files import Counts, mask_counts, summary
from wsss_jax.settings import part
from wsss_jax.stages.base import Stage
from wsss_jax.stages.infer_cam import InferCam
from wsss_jax.stages.predict import Predict
from wsss_jax.viz.labeled import labeled_mask

Mask = str | os.PathLike[str] | np.ndarray
"""The path of a mask (PNG with class indices), or class indices uint8 [h, w]."""

_MULTIPLE = 64
"""Divides the padded sides of images, so that images of many sizes need few programs."""


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """The mask of an image.

    Attributes:
      image: the image in RGB.
      mask: class indices; 0 is the background, and k is ``classes[k]``.
      probabilities: the probability of every class at every pixel, the background first. A class
        that the given labels exclude has 0. Above 67 million values (3 megapixels with 21 classes),
        they have a smaller size (h2, w2) of the same proportion, so that memory is bounded.
      classes: the names of all classes, the background first.
    """

    image: UInt8[np.ndarray, "h w 3"]
    mask: UInt8[np.ndarray, "h w"]
    probabilities: Float32[np.ndarray, "n h2 w2"]
    classes: tuple[str, ...]

    def overlay(self) -> UInt8[np.ndarray, "H w 3"]:
        """Returns the image with the mask painted over it, above a line that names the classes."""
        return labeled_mask(self.image, self.mask, self.classes[1:])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the mask as a PNG of class indices with VOC's palette."""
        refuse_addresses(os.fspath(path), "save")
        with atomic_write(Path(path)) as file:
            file.write(encode_mask(self.mask))


@dataclasses.dataclass(frozen=True)
class Cams:
    """The class activation maps of an image.

    Attributes:
      image: the image in RGB.
      maps: a map in 0…1 for each of `labels`. Above 67 million values, they have a smaller size
        (h2, w2) of the same proportion, so that memory is bounded.
      labels: the names of the classes that have maps.
      classes: the names of all classes, the background first.
    """

    image: UInt8[np.ndarray, "h w 3"]
    maps: Float[np.ndarray, "k h2 w2"]
    labels: tuple[str, ...]
    classes: tuple[str, ...]

    def mask(self, threshold: float) -> UInt8[np.ndarray, "h w"]:
        """Returns class indices: the class of the largest map where that is above `threshold`."""
        height, width = self.image.shape[:2]
        strongest = np.full((height, width), threshold, np.float32)
        found = np.zeros((height, width), np.uint8)
        for name, one in zip(self.labels, self.maps, strict=True):
            if one.shape != (height, width):
                one = cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR)
            found[one > strongest] = self.classes.index(name)
            np.maximum(strongest, one, out=strongest)
        return found


@dataclasses.dataclass(frozen=True)
class Run:
    """A run whose networks can be used; `load` makes it.

    A network is loaded when it is first used. Each new shape of images compiles a program, which
    takes seconds; sides are padded to multiples of 64, so there are few of these shapes.

    Attributes:
      workdir: the working directory of the run.
      stage: the name of the stage of type predict or infer_cam whose settings are used; empty for
        the last one of each type.
      changes: settings of these stages that replace those of the run.
    """

    workdir: Path
    stage: str = ""
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of all classes, the background first."""
        try:
            return ("background", *self._masks.classes)
        except UserError:
            return ("background", *self._cams.classes)

    def predict(self, image: Photo, labels: Iterable[str] | None = None) -> Segmentation:
        """Segments an image with the run's segmentation network; see `predict_many`."""
        return next(self.predict_many([image], labels))

    def predict_many(
        self, images: Iterable[Photo], labels: Iterable[str] | None = None
    ) -> Iterator[Segmentation]:
        """Segments images with the run's segmentation network, scales and CRF.

        Args:
          images: the images, of which a few are read at a time.
          labels: the names of the only classes that the masks may show besides the background; None
            allows all of them.

        Raises:
          UserError: the run has no segmentation network, an image cannot be read, or a label is
            unknown.
        """
        how = dataclasses.replace(self._masks.settings, known_labels=labels is not None)
        label = multi_hot(_list(labels or ()), self._masks.classes, "correct it")
        crf = part(how, CrfSettings) if how.crf else None

        def maps(source: Images) -> NetworkMaps:
            return NetworkMaps(
                source, self._segmentation, how, how.channels, how.centered, _MULTIPLE
            )

        def result(source: Images, position: int, made: Any) -> Segmentation:
            task = LogitTask(source.ids[position], made, source[position]["image"], crf)
            found, best = probabilities_and_best(task)
            probabilities = np.zeros((len(self.classes), *found.shape[1:]), np.float32)
            probabilities[made.channels] = found
            mask = made.channels[best].astype(np.uint8)
            return Segmentation(source.arrays[position], mask, probabilities, self.classes)

        yield from in_groups(images, label, self._masks.classes, maps, result)

    def cam(self, image: Photo, labels: Iterable[str] | None = None) -> Cams:
        """Returns the class activation maps of an image; see `cam_many`."""
        return next(self.cam_many([image], labels))

    def cam_many(
        self, images: Iterable[Photo], labels: Iterable[str] | None = None
    ) -> Iterator[Cams]:
        """Returns the class activation maps of images, with the run's scales.

        Args:
          images: the images, of which a few are read at a time.
          labels: the names of the classes to make maps of; None makes one of every class. Maps of
            classes that an image does not show mean nothing.

        Raises:
          UserError: the run makes no maps, an image cannot be read, or a label is unknown.
        """
        how, names = self._cams.settings, self._cams.classes
        label = multi_hot(_list(names if labels is None else labels), names, "correct it")

        def maps(source: Images) -> NetworkMaps:
            return how.maps(source, self._classifier, _MULTIPLE)

        def result(source: Images, position: int, made: Any) -> Cams:
            shown = tuple(names[channel] for channel in made.channels)
            if isinstance(made, ViewMaps):
                made = dataclasses.replace(made, size=fitting_size(made.size, len(shown)))
            values = how.cam(made).astype(np.float32)
            return Cams(source.arrays[position], values, shown, ("background", *names))

        yield from in_groups(images, label, names, maps, result)

    @functools.cached_property
    def _masks(self) -> Trained[Predict]:
        return find_network(self.workdir, Predict, self.stage, **self._changes_for(Predict))

    @functools.cached_property
    def _cams(self) -> Trained[InferCam]:
        return find_network(self.workdir, InferCam, self.stage, **self._changes_for(InferCam))

    def _changes_for(self, kind: type[Stage]) -> dict[str, Any]:
        own = {field.name for field in dataclasses.fields(kind)}
        return {name: value for name, value in self.changes.items() if name in own}

    @functools.cached_property
    def _segmentation(self) -> Network:
        return load_network(self._masks.checkpoint, len(self._masks.classes), "logits")

    @functools.cached_property
    def _classifier(self) -> Network:
        found = self._cams
        return load_network(found.checkpoint, len(found.classes), found.settings.output)


def load(workdir: str | os.PathLike[str], stage: str = "", **settings: Any) -> Run:
    """Opens a finished run, whose networks then segment images of any origin.

    Args:
      workdir: the working directory of the run.
      stage: the name of the stage of type predict or infer_cam whose settings are used; empty for
        the last one of each type.
      **settings: settings that replace those of the run, such as ``scales=(1.0,)``, ``flip=False``
        or ``crf=False``, which are several times as fast.

    Raises:
      UserError: there is no such run or stage, or a setting is unknown.
    """
    known = {f.name for kind in (Predict, InferCam) for f in dataclasses.fields(kind)}
    unknown = sorted(settings.keys() - known)
    if unknown:
        raise UserError(
            f"expected settings of the stages predict and infer_cam, found {unknown[0]}"
            f"{nearest(unknown[0], known)}: correct it"
        )
    run = Run(Path(workdir).expanduser(), stage, settings)
    _ = run.classes  # This refuses what is no finished run.
    return run


def crf(
    image: Photo, probabilities: Float[np.ndarray, "n h w"], **settings: Any
) -> Float32[np.ndarray, "n h w"]:
    """Refines the probabilities of labels with a dense CRF.

    Args:
      image: the image.
      probabilities: scores 0…1 of n labels at every pixel; they need not sum to 1.
      **settings: see `wsss_jax.host.dense_crf.CrfSettings`: ``gaussian`` (3, 3), ``bilateral`` (80,
        13, 10), ``iterations`` 10, ``fast``.

    Returns:
      The probabilities after the mean-field updates.

    Raises:
      UserError: the sizes differ, scores are not in 0…1, or a setting is unknown or out of range.
    """
    rgb = decoded(image)
    scores = np.asarray(probabilities, np.float32)
    if scores.ndim != 3 or scores.shape[1:] != rgb.shape[:2] or not len(scores):
        raise UserError(
            f"expected probabilities [labels, {rgb.shape[0]}, {rgb.shape[1]}] for this image, found"
            f" {list(scores.shape)}: resize them"
        )
    if not (scores.min() >= 0 and scores.max() <= 1):  # NaN, too
        raise UserError(
            f"expected probabilities in 0…1, found {scores.min():g} to {scores.max():g}: apply a"
            " softmax first"
        )
    how = CrfSettings.from_config(settings, "crf")
    unary = np.moveaxis(score_unary(scores), 0, 2)
    return np.moveaxis(crf_of(rgb, "given", how).infer(unary, how.iterations), 2, 0)


def score(
    masks: Iterable[Mask],
    truths: Iterable[Mask],
    classes: Sequence[str] = VOC_CLASSES,
    protocol: Protocol = "strict",
) -> dict[str, Any]:
    """Scores masks against the ground truth, as the evaluation of a run does.

    Args:
      masks: predicted masks, one by one.
      truths: their ground truth in the same order; pixels of value 255 are not scored.
      classes: the names of the foreground classes 1…C.
      protocol: whether an absent class counts as 0 (``strict``) or is left out (``present``).

    Returns:
      Fractions 0…1: ``miou``, ``iou`` by class, ``precision``, ``recall``, ``pixel_accuracy``,
      ``boundary_miou``, ``per_class`` and more, and the number of ``images``.

    Raises:
      UserError: there are no masks or more of one kind than of the other, sizes differ, or a value
        is not a class.
    """
    total, images = None, 0
    try:
        for mask, truth in zip(masks, truths, strict=True):
            counts = _counts(mask, truth, len(classes), images)
            total = counts if total is None else total + counts
            images += 1
    except ValueError as error:
        raise UserError(f"mask {images}: {error}") from error
    if total is None:
        raise UserError("expected masks to score, found none: check what is given")
    names = ("background", *classes)
    return {"images": images, **summary(total.classes[0], names, protocol, total.boundary)}


def _counts(mask: Mask, truth: Mask, num_classes: int, position: int) -> Counts:
    prediction, target = (_indices(one, num_classes) for one in (mask, truth))
    if prediction.shape != target.shape:
        raise UserError(
            f"expected mask {position} to have the shape {target.shape} of its ground truth, found"
            f" {prediction.shape}: resize it"
        )
    if (prediction == IGNORE).any():
        raise UserError(
            f"expected a class for every pixel of mask {position}, found the value {IGNORE}"
            " (ignore): give these pixels a class"
        )
    return mask_counts(prediction, target, num_classes)


def _indices(mask: Mask, num_classes: int) -> UInt8[np.ndarray, "h w"]:
    if isinstance(mask, np.ndarray):
        if mask.ndim != 2 or mask.dtype.kind not in "iub":
            raise UserError(
                f"expected a mask of integers [h, w], found {mask.dtype} {list(mask.shape)}:"
                " convert it to class indices"
            )
        if mask.size and not 0 <= mask.min() <= mask.max() <= IGNORE:
            raise UserError(
                f"expected class indices 0 to {IGNORE}, found {mask.min()} to {mask.max()}:"
                " correct the mask"
            )
        return mask.astype(np.uint8)
    return decode_mask(read_bytes(Path(mask)), str(mask), num_classes)


def _list(labels: Iterable[str]) -> list[str]:
    return [labels] if isinstance(labels, str) else list(labels)
