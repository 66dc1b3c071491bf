"""The random walk by squaring a dense matrix, in PyTorch: one run for every line of input.

Reads ``case.npz`` in the folder it is given (``scores`` [h, w, k], ``affinity`` [h, w, o],
``offsets`` [o, 2], ``beta``, ``doublings``, ``threads``), writes ``case_reference.npy`` and answers
with the ``seconds`` of wall and of processor time and the version of ``torch``.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]

from benchmarks import worker


def walk(
    scores: torch.Tensor,
    affinity: torch.Tensor,
    offsets: list[tuple[int, int]],
    beta: float,
    doublings: int,
) -> torch.Tensor:
    """``scores · T^(2^doublings)``, T the column-normalized matrix of affinity^beta."""
    h, w, k = scores.shape
    pixels = torch.arange(h * w).reshape(h, w)
    matrix = torch.eye(h * w)
    for index, (dy, dx) in enumerate(offsets):
        rows, left, right = h - dy, max(-dx, 0), w - max(dx, 0)
        first = pixels[:rows, left:right].reshape(-1)
        second = pixels[dy:, left + dx : right + dx].reshape(-1)
        values = affinity[:rows, left:right, index].reshape(-1)
        matrix[first, second] = values
        matrix[second, first] = values
    matrix = matrix**beta
    transition = matrix / matrix.sum(0, keepdim=True)
    for _ in range(doublings):
        transition = transition @ transition
    return (scores.reshape(-1, k).T @ transition).T.reshape(h, w, k)


def main() -> None:
    folder = Path(sys.argv[1])
    with np.load(folder / "case.npz") as file:
        case = {name: file[name] for name in file.files}
    torch.set_num_threads(int(case["threads"]))
    offsets = [(int(dy), int(dx)) for dy, dx in case["offsets"]]
    arguments = torch.from_numpy(case["scores"]), torch.from_numpy(case["affinity"])

    def answer(_: str) -> dict[str, Any]:
        wall, processor = time.perf_counter(), time.process_time()
        result = walk(*arguments, offsets, float(case["beta"]), int(case["doublings"]))
        seconds = time.perf_counter() - wall, time.process_time() - processor
        np.save(folder / "case_reference.npy", result.numpy())
        return {"seconds": seconds, "torch": torch.__version__}

    worker.serve(answer)


if __name__ == "__main__":
    main()
