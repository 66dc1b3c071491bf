"""The CRF package of the published programs, for `dense_crf.py`; runs in an environment of its own.

Argument: the folder of the cases (`<name>.npz` with `image`, the `unary` planes and a `kernel` of
sxy, srgb and weight). For each line ``NAME TIMES`` it builds and infers the case TIMES times, as
often as one needs results of an image (this package builds everything anew), writes the labels to
``<name>_reference.npy`` and answers with the ``seconds`` of processor time.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from pydensecrf import densecrf  # pyright: ignore[reportMissingImports]

from benchmarks import worker


def infer(image: np.ndarray, unary: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Q of ten updates [l, n]."""
    height, width = image.shape[:2]
    crf = densecrf.DenseCRF2D(width, height, len(unary))
    crf.setUnaryEnergy(unary)
    crf.addPairwiseGaussian(sxy=3, compat=3)
    sxy, srgb, weight = kernel.tolist()
    crf.addPairwiseBilateral(sxy=sxy, srgb=srgb, rgbim=image, compat=weight)
    return np.array(crf.inference(10))


def main() -> None:
    folder = Path(sys.argv[1])

    def answer(line: str) -> dict[str, Any]:
        name, times = line.split()
        with np.load(folder / f"{name}.npz") as arrays:
            case = dict(arrays)
        start = time.process_time()
        for _ in range(int(times)):
            q = infer(case["image"], case["unary"], case["kernel"])
        seconds = time.process_time() - start
        labels = q.argmax(0).astype(np.uint8).reshape(case["image"].shape[:2])
        np.save(folder / f"{name}_reference.npy", labels)
        return {"seconds": seconds}

    worker.serve(answer)


if __name__ == "__main__":
    main()
