"""Seconds of processor time of a dense CRF, ours and the C++ one of the published programs.

    python benchmarks/dense_crf.py --root VOCdevkit/VOC2012 --reference-python CRFENV/bin/python

CRFENV is an environment with pydensecrf2; without it only our side is measured. Maps are the masks
of the images, blurred and dimmed, so their values are like those of class activation maps. Each
image meets both sides in turn, on one core each; what counts is processor time, which other load on
the machine changes little. The time of ours includes the lattice over position only for the first
image of a size: it is kept.

    python benchmarks/dense_crf.py --root VOCdevkit/VOC2012 --device

compares updates on the host with updates on JAX's device instead, in seconds of wall time.
"""

import contextlib
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import command, tables, worker
from wsss_jax.data.images import decode_image
from wsss_jax.data.masks import decode_mask
from wsss_jax.host.background import with_background
from wsss_jax.host.dense_crf import (
    IRN,
    PSA,
    CrfSettings,
    DenseCrf,
    HostMeanField,
    MakeMeanField,
    label_unary,
    score_unary,
)
from wsss_jax.host.host_memory import keep_freed_memory


class Reference(worker.Worker):
    """The other side's process."""

    def __init__(self, python: str, folder: Path):
        super().__init__(python, "pydensecrf_worker.py", folder)
        self.folder = folder

    def run(
        self, image: np.ndarray, unary: np.ndarray, how: CrfSettings, times: int
    ) -> tuple[float, np.ndarray]:
        """Seconds, and the labels."""
        planes = np.ascontiguousarray(np.moveaxis(unary, 2, 0)).reshape(unary.shape[2], -1)
        np.savez(self.folder / "case.npz", image=image, unary=planes, kernel=how.bilateral)
        seconds = self.ask(f"case {times}")["seconds"]
        return seconds, np.load(self.folder / "case_reference.npy")


def maps_of(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[k, h, w] maps of the classes in a mask."""
    keys = [key for key in np.unique(mask) if 0 < key < 255]
    dim = cv2.resize(0.7 + 0.3 * rng.random((12, 12), np.float32), mask.shape[::-1])
    maps = [cv2.GaussianBlur((mask == key).astype(np.float32), (0, 0), 20) for key in keys]
    return np.stack([one / one.max() * dim for one in maps])


def planes_last(planes: np.ndarray) -> np.ndarray:
    """[k, h, w] to [h, w, k]."""
    return np.moveaxis(planes, 0, 2)


def one_alpha(scores: np.ndarray) -> list[np.ndarray]:
    return [score_unary(planes_last(with_background(scores, 4)))]


def both_alphas(scores: np.ndarray) -> list[np.ndarray]:
    return [score_unary(planes_last(with_background(scores, alpha))) for alpha in (24, 4)]


def hard_labels(scores: np.ndarray) -> list[np.ndarray]:
    probable = with_background(scores, 4)
    return [label_unary(probable.argmax(0), len(probable), 0.7)]


def all_labels(scores: np.ndarray) -> list[np.ndarray]:
    every = np.zeros((20, *scores.shape[1:]), np.float32)
    every[: len(scores)] = scores
    return one_alpha(every)


CASES: dict[str, tuple[CrfSettings, Callable[[np.ndarray], list[np.ndarray]], bool]] = {
    "PSA, one α": (PSA, one_alpha, False),
    "PSA, both α of an image": (PSA, both_alphas, False),
    "IRN, hard labels": (IRN, hard_labels, False),
    "PSA, 21 labels": (PSA, all_labels, False),
    "PSA, both α, fast": (PSA, both_alphas, True),
}


def read_cases(paths: list[Path], root: Path) -> Iterator[tuple[str, np.ndarray, list[np.ndarray]]]:
    """The name, image and unaries of the cases of each image."""
    rng, seen = np.random.default_rng(0), Counter()
    for path in paths:
        image = decode_image((root / "JPEGImages" / f"{path.stem}.jpg").read_bytes(), path.stem)
        scores = maps_of(decode_mask(path.read_bytes(), path.name, None), rng)
        for name, (_, make, _) in CASES.items():
            unaries = make(scores)
            if len(unaries[0][0, 0]) > 3 and seen[name] > 3:
                continue  # many labels take long; a few images show the ratio
            seen[name] += 1
            yield name, image, unaries


def ours(
    name: str,
    image: np.ndarray,
    unaries: list[np.ndarray],
    clock: Callable[[], float] = time.process_time,
    mean_field: MakeMeanField = HostMeanField,
) -> tuple[float, float, np.ndarray]:
    """Seconds of the lattice and of everything, and the labels of the last unary."""
    how, _, fast = CASES[name]
    start = clock()
    crf = DenseCrf(
        image, gaussian=how.gaussian, bilateral=how.bilateral, fast=fast, mean_field=mean_field
    )
    built = clock()
    for unary in unaries:
        q = crf.infer(unary, how.iterations)
    return built - start, clock() - start, q.argmax(-1)


def measure(
    paths: list[Path], root: Path, reference: Reference | None
) -> dict[str, list[tuple[float, float, float]]]:
    """By case and image: our seconds, the other side's, and the share of labels that agree.

    Without another side the last two are NaN.
    """
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in CASES}
    for name, image, unaries in read_cases(paths, root):
        _, seconds, labels = ours(name, image, unaries)
        other, same = float("nan"), float("nan")
        if reference:
            how, _, _ = CASES[name]
            other, expected = reference.run(image, unaries[-1], how, len(unaries))
            same = float((labels == expected).mean())
        rows[name].append((seconds, other, same))
    return rows


def compare_device(paths: list[Path], root: Path) -> None:
    """Prints the table with updates on JAX's device, whose programs are compiled beforehand."""
    import jax

    from wsss_jax.ops.mean_field import DeviceMeanField

    rows: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in CASES}
    for case in read_cases(paths, root):
        lattice, host, expected = ours(*case, time.perf_counter)
        ours(*case, time.perf_counter, DeviceMeanField)
        _, device, labels = ours(*case, time.perf_counter, DeviceMeanField)
        rows[case[0]].append((lattice, host, device, float((labels == expected).mean())))
    print(tables.machine(1, "numpy", "scipy", "jax"))
    print(f"{len(paths)} images, medians of seconds; device: {jax.devices()[0].device_kind}\n")
    names = ("lattice on the host", "with updates on the host", "with updates on the device")
    print(tables.head(("case", "images", *names, "same labels, worst image")))
    for name, measured in rows.items():
        *seconds, same = zip(*measured, strict=True)
        cells = [f"{statistics.median(one):.3f}" for one in seconds]
        print(tables.row([name, len(measured), *cells, f"{100 * min(same):.3f} %"]))


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--root", type=Path, required=True, help="VOC2012 folder with masks")
    parser.add_argument("--reference-python", help="interpreter of an environment with pydensecrf2")
    parser.add_argument("--masks", default="SegmentationClass", help="folder of the masks")
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--device", action="store_true", help="compare with JAX's device instead")
    options = parser.parse_args()
    paths = sorted((options.root / options.masks).glob("*.png"))
    paths = paths[:: max(len(paths) // options.images, 1)][: options.images]
    if not paths:
        parser.error(f"expected masks (.png) in {options.root / options.masks}, found none")
    alone = worker.why_not(options.reference_python, "pydensecrf")
    if alone and options.reference_python:
        parser.error(f"--reference-python: {alone}")
    cv2.setNumThreads(1)
    keep_freed_memory()  # as the stage's workers do
    if options.device:
        compare_device(paths, options.root)
        return
    with contextlib.ExitStack() as stack:
        reference = None
        if not alone:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            reference = stack.enter_context(Reference(options.reference_python, Path(folder)))
        try:
            rows = measure(paths, options.root, reference)
        except worker.WorkerEnded as error:
            sys.exit(str(error))
    print(tables.machine(1, "numpy", "scipy"))
    print(f"{len(paths)} images, medians of processor seconds")
    print(f"The C++ program is left out: {alone}.\n" if alone else "")
    print(tables.head(("case", "images", "ours", "C++", "ratio", "same labels, worst image")))
    for name, measured in rows.items():
        mine, theirs, same = zip(*measured, strict=True)
        cells = [name, len(measured), f"{statistics.median(mine):.3f}"]
        if reference:
            ratio = statistics.median(t / m for m, t in zip(mine, theirs, strict=True))
            cells += [f"{statistics.median(theirs):.3f}", f"**{ratio:.2f}**"]
            cells += [f"{100 * min(same):.3f} %"]
        else:
            cells += ["–"] * 3
        print(tables.row(cells))


if __name__ == "__main__":
    main()
