"""Dense CRF with Gaussian edge potentials, mean field on the host.

Krähenbühl, Koltun: Efficient Inference in Fully Connected CRFs (NeurIPS 2011): a kernel over
position and one over position and colour, Potts compatibility, symmetric normalisation. NumPy and
SciPy on one core, free of JAX: images are shared between processes.
"""

import dataclasses
import functools

import cv2
import numpy as np
from jaxtyping import Float32, Integer, UInt8

from wsss_jax.errors import UserError
from wsss_jax.host.lattice import NormalisedKernel
from wsss_jax.settings import Settings

Number = float | int
Gaussian = tuple[Number, Number]
Bilateral = tuple[Number, Number, Number]

_SMALLEST = 1e-5
_CACHED_SIZES = 8
_TOGETHER = 8  # from so many labels on, a product with all of them is worth the transposition


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrfSettings(Settings):
    """A dense CRF; the defaults are those of PSA and SEAM for score maps.

    Attributes:
      gaussian: the kernel over positions: its standard deviation in pixels and its weight.
      bilateral: the kernel over positions and colors: its standard deviations in pixels and in grey
        levels (0 to 255), and its weight.
      iterations: updates of the mean field.
      fast: messages are passed at half the resolution, see `DenseCrf`.
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
        if self.iterations < 0:
            raise UserError(f"expected iterations of at least 0, found {self.iterations}: raise it")


PSA = CrfSettings()
"""For score maps of PSA and SEAM, with the background (1 − max)^α, α = 4 and 24."""
IRN = CrfSettings(bilateral=(50.0, 5.0, 10.0))
"""For the hard labels of IRN, of confidence 0.7."""


def score_unary(scores: Float32[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """−log of the scores, clipped to 1e-5…1; over the labels they need not sum to 1."""
    return -np.log(np.clip(scores, np.float32(_SMALLEST), np.float32(1)))


def label_unary(
    labels: Integer[np.ndarray, "h w"], num_labels: int, confidence: float
) -> Float32[np.ndarray, "h w l"]:
    """−log p on a pixel's label, −log((1 − p)/(L − 1)) on the others, p = `confidence`.

    A single label leaves nothing to tell apart: all zeros.

    Raises:
      ValueError: a label that is not below `num_labels`, or a confidence not inside 0…1.
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


class DenseCrf:
    """The CRF of one image, built once and used for any number of unaries.

    The lattice does not look alike from both sides: of a mirrored image, up to 0.06 % of the labels
    change, and Q by up to 0.0005 on average (two VOC images, both flips, `PSA` and `IRN`).

    Args:
      image: RGB.
      gaussian: (sxy, weight) of the kernel over position.
      bilateral: (sxy, srgb, weight) of the kernel over position and colour.
      fast: pass messages at half the resolution (of image and unary, averaged), enlarge the last
        ones bilinearly and add them to the full unary: about four times as fast. On ten VOC images
        99.3 % of the labels (97.1 % to 100 %) were those of the full CRF with `PSA`, 99.1 % with
        `IRN`; the CRF itself changes 4 % of them.

    Raises:
      ValueError: an image without pixels, a width that is not above 0 (or so small that the
        lattice cannot be numbered), or a negative weight.
    """

    def __init__(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        *,
        gaussian: Gaussian,
        bilateral: Bilateral,
        fast: bool = False,
    ):
        widths, weights = (gaussian[0], *bilateral[:2]), (gaussian[1], bilateral[2])
        if image.size == 0:
            raise ValueError(f"expected an image with pixels, found shape {image.shape}")
        # Written so that NaN is refused too.
        if not (all(v > 0 for v in widths) and all(v >= 0 for v in weights)):
            raise ValueError(
                f"expected widths above 0 and weights of at least 0, found gaussian {gaussian}"
                f" and bilateral {bilateral}"
            )
        self._size = self._inner = (image.shape[0], image.shape[1])
        if fast:
            self._inner = ((self._size[0] + 1) // 2, (self._size[1] + 1) // 2)
            image = cv2.resize(image, self._inner[::-1], interpolation=cv2.INTER_AREA)
            gaussian = (gaussian[0] / 2, gaussian[1])
            bilateral = (bilateral[0] / 2, *bilateral[1:])
        colour = image.reshape(-1, 3).T / np.float32(bilateral[1])
        features = np.concatenate([_position(*self._inner, bilateral[0]), colour])
        self._kernels = (
            _gaussian_kernel(*self._inner, gaussian),
            NormalisedKernel(features, bilateral[2]),
        )

    def infer(
        self, unary: Float32[np.ndarray, "h w l"], iterations: int
    ) -> Float32[np.ndarray, "h w l"]:
        """The mean-field distribution over labels after `iterations` updates.

        Q starts as softmax(−unary); an update is Q ← softmax(−unary + Σ weight · K̂ Q). Labels lie
        in planes in memory, so that moving them first costs nothing.

        Raises:
          ValueError: `unary` is of another size than the image, has no labels, or is not finite.
        """
        if unary.shape[:2] != self._size or unary.shape[2] < 1:
            raise ValueError(
                f"expected a unary of {self._size} and at least 1 label, found {unary.shape}"
            )
        if not np.isfinite(unary).all():
            raise ValueError("expected a finite unary, found NaN or infinity")
        logits = np.negative(np.moveaxis(unary, 2, 0), order="C")  # planes lie in one piece
        if iterations > 0 and len(logits) > 1:
            inner = _resized(logits, self._inner, cv2.INTER_AREA)
            message = self._last_message(inner.reshape(len(inner), -1), iterations)
            logits = logits + _resized(message.reshape(inner.shape), self._size, cv2.INTER_LINEAR)
        q = _softmax(logits.reshape(len(logits), -1))
        return np.moveaxis(q.reshape(logits.shape), 0, 2)

    def _last_message(
        self, logits: Float32[np.ndarray, "l n"], iterations: int
    ) -> Float32[np.ndarray, "l n"]:
        """Σ weight · K̂ Q of the last update, less its mean over the labels (softmax ignores that).

        Q − 1/L sums to 0 over the labels, so the last label's message follows from the others'.
        Where all labels are equal the messages are 0 exactly; a tie there would be unstable.
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
            columns = cv2.transpose(planes)  # by blocks, several times faster than NumPy
            cv2.transpose(first.apply(columns) + second.apply(columns), dst=out)


def dense_crf(
    image: UInt8[np.ndarray, "h w 3"],
    unary: Float32[np.ndarray, "h w l"],
    *,
    gaussian: Gaussian,
    bilateral: Bilateral,
    iterations: int,
    fast: bool = False,
) -> Float32[np.ndarray, "h w l"]:
    """The distribution over labels of one image and unary; see `DenseCrf`.

    Raises:
      ValueError: as `DenseCrf` and its `infer`.
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
def _gaussian_kernel(height: int, width: int, gaussian: Gaussian) -> NormalisedKernel:
    # The same for all images of a size, and a data set has few sizes that are frequent.
    return NormalisedKernel(_position(height, width, gaussian[0]), gaussian[1])


def _softmax(logits: Float32[np.ndarray, "l n"]) -> Float32[np.ndarray, "l n"]:
    """Over the labels, in place."""
    logits -= logits.max(0)
    np.exp(logits, out=logits)
    logits /= logits.sum(0)
    return logits


def crf_of(image: UInt8[np.ndarray, "h w 3"], image_id: str, how: CrfSettings) -> DenseCrf:
    """The CRF of an image.

    Raises:
      UserError: the settings do not fit the image, which is named.
    """
    try:
        return DenseCrf(image, gaussian=how.gaussian, bilateral=how.bilateral, fast=how.fast)
    except ValueError as error:
        raise UserError(f"CRF of image {image_id}: {error}") from error
