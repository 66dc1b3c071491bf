"""Averages planes over blocks of pixels, for maps of networks with a stride."""

import numpy as np
from jaxtyping import Float32


def block_means(planes: Float32[np.ndarray, "k h w"], stride: int) -> Float32[np.ndarray, "k p q"]:
    """Averages planes over blocks of `stride` × `stride` pixels, counting only pixels of the image.

    The last blocks of a side that `stride` does not divide are smaller. The published random walk
    also counts zeros beyond the last row and column, which weakens the edge.
    """
    k, h, w = planes.shape
    if h % stride or w % stride:
        planes = np.pad(planes, ((0, 0), (0, -h % stride), (0, -w % stride)))
    blocks = planes.reshape(k, -(-h // stride), stride, -(-w // stride), stride)
    pixels = [np.minimum(stride, n - np.arange(0, n, stride)) for n in (h, w)]
    return blocks.sum((2, 4)) / np.outer(*pixels).astype(np.float32)
