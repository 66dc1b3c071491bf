"""The mean intersection over union of logits, or of activation maps at the best threshold."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import ClassVar, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float, Int64, PyTree

from wsss_jax.data.images import decode_image
from wsss_jax.data.masks import decode_mask
from wsss_jax.data.source import Record, Source
from wsss_jax.errors import UserError
from wsss_jax.host.normalization import normalized
from wsss_jax.methods.base import Method
from wsss_jax.methods.prediction import prediction
from wsss_jax.ops.buckets import Batch, Plan, Sizes, choose_buckets, place
from wsss_jax.ops.resize import interpolation_matrix
from wsss_jax.ops.sharding import data_mesh, replicated
from wsss_jax.progress import come_further
from wsss_jax.scoring.confusion import (
    Protocol,
    class_counts,
    class_scores,
    threshold_counts,
)
from wsss_jax.scoring.score_files import THRESHOLDS
from wsss_jax.training.evaluators.base import Evaluate, Evaluator

_BUCKETS = 4
_BATCH_PIXELS = 1 << 19  # the pixels of a device's batch, unless one image has more


@dataclasses.dataclass(frozen=True, kw_only=True)
class Miou(Evaluator):
    """Measures the mIoU at the size of the images, without flips or a CRF.

    With ``logits``, the network predicts the classes. With ``cam``, only the maps of the image's
    classes compete, each divided by its maximum, as for seeds. The threshold of the background is
    then the best one on the evaluated images (an oracle), which is reported.

    Attributes:
      output: the prediction of the method that is evaluated.
      upsample: ``corners`` upsamples maps with corners aligned with those of the image, and
        ``direct`` with half-pixel centers, as in the infer_cam stage of AffinityNet's and SSENet's
        recipes.
      protocol: whether a class that is neither predicted nor present counts as 0 (``strict``) or is
        left out (``present``).
    """

    figure: ClassVar[str] = "miou"

    output: Literal["logits", "cam"] = "logits"
    upsample: Literal["corners", "direct"] = "corners"
    protocol: Protocol = "strict"

    def check(self, method: Method) -> None:
        """Checks that the method predicts `output`; see `Evaluator`."""
        if self.output not in method.outputs:
            raise UserError(
                f"expected output to be one of {', '.join(method.outputs)}, which the method"
                f" predicts, found {self.output}: change it"
            )

    def check_source(self, source: Source) -> None:
        """Checks that the split has ground truth; see `Evaluator`."""
        for position in range(self.count(source)):
            if source[position]["segmentation"] is None:
                raise UserError(
                    f"expected ground-truth masks of the split {self.split}, found none for"
                    f" {source.ids[position]}: evaluate on another split, or set every to 0"
                )

    def prepare(self, method: Method, source: Source) -> Evaluate:
        """Returns the function that evaluates; see `Evaluator`."""
        positions = range(jax.process_index(), self.count(source), jax.process_count())
        predict = prediction(method, self.output, data_mesh(jax.local_devices()))
        return functools.partial(self._figures, method, source, positions, predict)

    def _figures(
        self,
        method: Method,
        source: Source,
        positions: range,
        predict: Callable[[PyTree, np.ndarray, np.ndarray], jax.Array],
        variables: PyTree,
    ) -> dict[str, float]:
        # Each process works on its own devices, because the numbers of batches can differ.
        own = jax.tree.map(lambda array: array.addressable_data(0), variables)
        weights = jax.device_put(own, replicated(data_mesh(jax.local_devices())))
        levels = 1 if self.output == "logits" else len(THRESHOLDS)
        total = np.zeros((levels, 3, method.num_classes + 1), np.int64)
        for batch in _batches(method, source, positions):
            records = [source[position] for position in batch.positions]
            images = [decode_image(record["image"], record["id"]) for record in records]
            placed = place(images, batch.bucket[0], batch.rows)
            maps = np.asarray(predict(weights, *placed))
            for row, record in enumerate(records):
                total += self._counts(method, record, maps[row])
            come_further(0)
        come_further()
        if jax.process_count() > 1:
            total = _over_processes(total)
        scores = class_scores(total, self.protocol)["miou"]
        best = int(scores.argmax())
        figures = {"miou": float(scores[best])}
        return figures if levels == 1 else figures | {"threshold": float(THRESHOLDS[best])}

    def _counts(
        self, method: Method, record: Record, maps: Float[np.ndarray, "h w k"]
    ) -> Int64[np.ndarray, "t 3 n"]:
        """Returns the pixel counts of an image at every threshold, or only once for logits."""
        classes = method.num_classes
        assert record["segmentation"] is not None
        truth = decode_mask(record["segmentation"], record["id"], classes)
        stride = method.stride(self.output)
        low = maps[: -(-truth.shape[0] // stride), : -(-truth.shape[1] // stride)]
        rows, columns = (
            interpolation_matrix(small, full, align_corners=self.upsample == "corners")
            for small, full in zip(low.shape[:2], truth.shape, strict=True)
        )
        if self.output == "logits":
            logits = rows @ np.moveaxis(low, -1, 0) @ columns.T
            prediction = logits.argmax(0).astype(np.uint8)
            return class_counts(prediction, truth, classes)[None]
        keys = np.flatnonzero(record["label"] > 0)
        planes = normalized(rows @ np.moveaxis(low, -1, 0)[keys] @ columns.T, "max")
        return threshold_counts(planes, keys, truth, THRESHOLDS, classes)


def _over_processes(total: Int64[np.ndarray, "t 3 n"]) -> Int64[np.ndarray, "t 3 n"]:
    # JAX cuts integers to 32 bits, which 7,000 images of 640×480 pixels exceed. Their halves fit.
    gathered = multihost_utils.process_allgather(total.view(np.uint32))
    return np.ascontiguousarray(gathered).view(np.int64).sum(0)


def _batches(method: Method, source: Source, positions: range) -> list[Batch]:
    """Returns the batches of `positions`, the same at every evaluation."""
    # All processes plan for all images that are evaluated.
    sizes: list[Sizes] = [(source.sizes[one],) for one in range(positions.stop)]
    if method.backbone.exact_padding:
        multiple = math.lcm(*method.backbone.tap_strides.values())
        buckets = choose_buckets(sizes, _BUCKETS, multiple)
    else:
        buckets = tuple(sorted(set(sizes)))
    return Plan(sizes, buckets, _BATCH_PIXELS, jax.local_device_count()).batches(positions)
