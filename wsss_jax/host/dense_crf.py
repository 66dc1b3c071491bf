"""Dense CRF with Gaussian edge potentials, by mean-field inference on the host.

Source: Krähenbühl, Koltun: Efficient Inference in Fully Connected CRFs (NeurIPS 2011). There is a
kernel over position and one over position and color, with Potts compatibility and symmetric
normalization. It runs on one core with NumPy and SciPy and without JAX, because images are shared
between processes. Only the mean-field updates can also run elsewhere, see `MeanField`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float32, Integer, UInt8

from wsss_jax.errors import UserError
from wsss_jax.host.lattice import NormalizedKernel
from wsss_jax.settings import Settings
from wsss_jax.settings.limits import check_limits

Number = float | int
Gaussian = tuple[Number, Number]
Bilateral = tuple[Number, Number, Number]

MOST_PIXELS = 2_000_000
"""The pixels at which messages are passed at most; see `DenseCrf`."""

_SMALLEST = 1e-5
# Bytes by pixel, measured on photographs and noise with 2 and 21 labels.
_LATTICE_BYTES, _LABEL_BYTES, _FULL_LABEL_BYTES, _IMAGE_BYTES = 700, 30, 40, 30
_CACHED_SIZES = 8
_TOGETHER = 4  # from this many planes on, one product for all is worth two transpositions


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrfSettings(Settings):
    """Settings of a dense CRF; the defaults are those of PSA and SEAM for score maps.

    Attributes:
      gaussian: the standard deviation in pixels and the weight of the kernel over positions.
      bilateral: the standard deviations in pixels and in gray levels (0 to 255), and the weight, of
        the kernel over positions and colors.
      iterations: the number of mean-field updates.
      fast: whether messages are passed at half the resolution; see `DenseCrf`.
    """

    gaussian: tuple[float, float] = (3.0, 3.0)
    bilateral: tuple[float, float, float] = (80.0, 13.0, 10.0)
    iterations: int = 10
    fast: bool = False

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: a width is not above 0, or a weight or the number of updates is below 0.
        """
        super().__post_init__()
        widths, weights = (
            (self.gaussian[0], *self.bilateral[:2]),
            (self.gaussian[1], self.bilateral[2]),
        )
        if not (all(width > 0 for width in widths) and all(weight >= 0 for weight in weights)):
            raise UserError(
                "expected CRF widths above 0 and weights of at least 0, found gaussian"
                f" {self.gaussian} and bilateral {self.bilateral}: change them"
            )
        check_limits(self, iterations=(0, math.inf))

    def resized(self, scale: float) -> "CrfSettings":
        """Returns the settings for an image that is resized by `scale`."""
        if scale == 1:
            return self
        (sxy, weight), (bilateral_sxy, *others) = self.gaussian, self.bilateral
        bilateral = (bilateral_sxy * scale, *others)
        return dataclasses.replace(self, gaussian=(sxy * scale, weight), bilateral=bilateral)


PSA = CrfSettings()
"""The settings for score maps of PSA and SEAM, with the background (1 − max)^α, α = 4 and 24."""
IRN = CrfSettings(bilateral=(50.0, 5.0, 10.0))
"""The settings for the hard labels of IRN, with a confidence of 0.7."""


def score_unary(scores: Float32[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Returns −log of scores that are clipped to 1e-5…1 and need not sum to 1 over the labels."""
    return -np.log(np.clip(scores, np.float32(_SMALLEST), np.float32(1)))


def label_unary(
    labels: Integer[np.ndarray, "h w"], num_labels: int, confidence: float
) -> Float32[np.ndarray, "h w l"]:
    """Returns −log p for a pixel's label and −log((1 − p)/(L − 1)) for the others.

    Here p is `confidence`. If there is only one label, the unary is zero.

    Raises:
      ValueError: a label is not below `num_labels`, or the confidence is not inside 0…1.
    """
    if num_labels < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"expected at least 1 label and a confidence inside 0…1, found {num_labels} and"
            f" {confidence}"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < num_labels:
        raise ValueError(
            f"expected labels 0 to {num_labels - 1}, found {labels.min()} to {labels.max()}"
        )
    if num_labels == 1:
        return np.zeros((*labels.shape, 1), np.float32)
    hit = labels[..., None] == np.arange(num_labels)
    other = (1 - confidence) / (num_labels - 1)
    return np.where(hit, -np.log(confidence), -np.log(other)).astype(np.float32)


Kernels = tuple[NormalizedKernel, NormalizedKernel]
MeanField = Callable[[Float32[np.ndarray, "l n"], int], Float32[np.ndarray, "l n"]]
"""Computes the message of the last of some mean-field updates from the negative unary.

The message Σ weight · K̂ Q may have any mean over the labels, which the softmax ignores. Where all
labels are equal it is exactly 0; otherwise ties would be unstable.
"""


MakeMeanField = Callable[[Kernels], MeanField]
"""Prepares the updates with the kernels of one image."""


class HostMeanField:
    """Mean-field updates with the kernels of one image, on one core of the host."""

    def __init__(self, kernels: Kernels):
        self._kernels = kernels

    def __call__(
        self, logits: Float32[np.ndarray, "l n"], iterations: int
    ) -> Float32[np.ndarray, "l n"]:
        """Returns the last message; see `MeanField`.

        Q − 1/L sums to 0 over the labels, so the message of the last label follows from the others.
        """
        message, q = np.zeros_like(logits), np.empty_like(logits)
        for _ in range(iterations):
            _softmax(np.add(message, logits, out=q))
            q -= np.float32(1 / len(q))
            self._filter(q[:-1], message[:-1])
            np.negative(message[:-1].sum(0), out=message[-1])
        return message

    def _filter(self, planes: Float32[np.ndarray, "l n"], out: Float32[np.ndarray, "l n"]) -> None:
        first, second = self._kernels
        if len(planes) < _TOGETHER:
            for plane, result in zip(planes, out, strict=True):
                np.add(first.apply(plane), second.apply(plane), out=result)
        else:
            columns = cv2.transpose(planes)  # OpenCV works on blocks, several times faster
            sums = first.apply(columns)
            sums += second.apply(columns)
            cv2.transpose(sums, dst=out)


class DenseCrf:
    """The CRF of one image, built once and used for any number of unaries.

    The lattice is not symmetric: if an image is flipped, up to 0.06 % of the labels change, and Q
    changes by up to 0.0005 on average (two VOC images, both flips, `PSA` and `IRN`).

    Args:
      image: the image in RGB.
      gaussian: (sxy, weight) of the kernel over position.
      bilateral: (sxy, srgb, weight) of the kernel over position and color.
      fast: whether to pass messages at half the resolution, with averaged image and unary, upsample
        the last messages bilinearly and add them to the full unary. This is about four times as
        fast. On ten VOC images, 99.3 % of the labels (97.1 % to 100 %) were those of the full CRF
        with `PSA`, and 99.1 % with `IRN`; the CRF itself changes 4 % of them. The messages of an
        image of more than `MOST_PIXELS` pixels are passed in the same way at that number of pixels,
        because their memory grows with it.
      mean_field: what makes the mean-field updates from the kernels of the image.

    Raises:
      ValueError: the image has no pixels, a width is not above 0 (or so small that the lattice
        cannot be numbered), or a weight is negative.
    """

    def __init__(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        *,
        gaussian: Gaussian,
        bilateral: Bilateral,
        fast: bool = False,
        mean_field: MakeMeanField = HostMeanField,
    ):
        widths, weights = (gaussian[0], *bilateral[:2]), (gaussian[1], bilateral[2])
        if image.size == 0:
            raise ValueError(f"expected an image with pixels, found shape {image.shape}")
        # The comparisons are written so that they refuse NaN too.
        if not (all(v > 0 for v in widths) and all(v >= 0 for v in weights)):
            raise ValueError(
                f"expected widths above 0 and weights of at least 0, found gaussian {gaussian}"
                f" and bilateral {bilateral}"
            )
        self._size = self._inner = (image.shape[0], image.shape[1])
        scale = 1.0
        if fast:
            scale, self._inner = 0.5, ((self._size[0] + 1) // 2, (self._size[1] + 1) // 2)
        if self._inner[0] * self._inner[1] > MOST_PIXELS:
            self._inner = bounded_size(self._size)
            scale = (self._inner[0] / self._size[0] * self._inner[1] / self._size[1]) ** 0.5
        if scale < 1:
            image = cv2.resize(image, self._inner[::-1], interpolation=cv2.INTER_AREA)
            gaussian = (gaussian[0] * scale, gaussian[1])
            bilateral = (bilateral[0] * scale, *bilateral[1:])
        color = image.reshape(-1, 3).T / np.float32(bilateral[1])
        features = np.concatenate([_position(*self._inner, bilateral[0]), color])
        position = _gaussian_kernel(*self._inner, gaussian)
        self._last_message = mean_field((position, NormalizedKernel(features, bilateral[2])))

    def infer(
        self, unary: Float32[np.ndarray, "h w l"], iterations: int
    ) -> Float32[np.ndarray, "h w l"]:
        """Returns the mean-field distribution over labels after `iterations` updates.

        Q starts as softmax(−unary), and an update is Q ← softmax(−unary + Σ weight · K̂ Q). The
        result has its labels in planes in memory, so moving their axis to the front costs nothing.

        Raises:
          ValueError: the size of `unary` differs from the image's, or it has no labels or is not
            finite.
        """
        if unary.shape[:2] != self._size or unary.shape[2] < 1:
            raise ValueError(
                f"expected a unary of {self._size} and at least 1 label, found {unary.shape}"
            )
        if not np.isfinite(unary).all():
            raise ValueError("expected a finite unary, found NaN or infinity")
        logits = np.negative(np.moveaxis(unary, 2, 0), order="C")  # each plane is contiguous
        if iterations > 0 and len(logits) > 1:
            inner = _resized(logits, self._inner, cv2.INTER_AREA)
            message = self._last_message(inner.reshape(len(inner), -1), iterations)
            logits = logits + _resized(message.reshape(inner.shape), self._size, cv2.INTER_LINEAR)
        q = _softmax(logits.reshape(len(logits), -1))
        return np.moveaxis(q.reshape(logits.shape), 0, 2)


def bounded_size(size: tuple[int, int]) -> tuple[int, int]:
    """Returns a (height, width) of at most about `MOST_PIXELS` pixels, in the same proportion."""
    scale = min(1.0, (MOST_PIXELS / (size[0] * size[1])) ** 0.5)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def memory(size: tuple[int, int], labels: int, bounded: bool = False) -> int:
    """Returns the memory in bytes that the CRF of an image takes at most.

    Args:
      size: the height and width of the image.
      labels: the number of labels.
      bounded: whether the unary has the size of `bounded_size` too.
    """
    pixels = size[0] * size[1]
    inner = min(pixels, MOST_PIXELS) * (_LATTICE_BYTES + _LABEL_BYTES * labels)
    full = 0 if bounded else max(pixels - MOST_PIXELS, 0) * _FULL_LABEL_BYTES * labels
    return inner + full + pixels * _IMAGE_BYTES


def dense_crf(
    image: UInt8[np.ndarray, "h w 3"],
    unary: Float32[np.ndarray, "h w l"],
    *,
    gaussian: Gaussian,
    bilateral: Bilateral,
    iterations: int,
    fast: bool = False,
) -> Float32[np.ndarray, "h w l"]:
    """Returns the distribution over labels for one image and unary; see `DenseCrf`.

    Raises:
      ValueError: for the same reasons as `DenseCrf` and `DenseCrf.infer`.
    """
    crf = DenseCrf(image, gaussian=gaussian, bilateral=bilateral, fast=fast)
    return crf.infer(unary, iterations)


def _position(height: int, width: int, sxy: Number) -> Float32[np.ndarray, "2 n"]:
    grid = np.indices((height, width), np.float32)[::-1].reshape(2, -1)  # x first
    return grid / np.float32(sxy)


def _resized(
    planes: Float32[np.ndarray, "l h w"], size: tuple[int, int], method: int
) -> Float32[np.ndarray, "l h2 w2"]:
    if planes.shape[1:] == size:
        return planes
    resized = [
        cv2.resize(np.ascontiguousarray(plane), size[::-1], interpolation=method)
        for plane in planes
    ]
    return np.stack(resized)


@functools.lru_cache(maxsize=_CACHED_SIZES)
def _gaussian_kernel(height: int, width: int, gaussian: Gaussian) -> NormalizedKernel:
    # All images of a size share this kernel, and a data set has few frequent sizes.
    return NormalizedKernel(_position(height, width, gaussian[0]), gaussian[1])


def _softmax(logits: Float32[np.ndarray, "l n"]) -> Float32[np.ndarray, "l n"]:
    """Computes the softmax over the labels, in place."""
    logits -= logits.max(0)
    np.exp(logits, out=logits)
    logits /= logits.sum(0)
    return logits


def crf_of(
    image: UInt8[np.ndarray, "h w 3"],
    image_id: str,
    how: CrfSettings,
    mean_field: MakeMeanField = HostMeanField,
) -> DenseCrf:
    """Builds the CRF of an image.

    Raises:
      UserError: the settings do not fit the image; the message names it.
    """
    try:
        g, b, fast = how.gaussian, how.bilateral, how.fast
        return DenseCrf(image, gaussian=g, bilateral=b, fast=fast, mean_field=mean_field)
    except ValueError as error:
        raise UserError(f"CRF of image {image_id}: {error}") from error
