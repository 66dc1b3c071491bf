"""Seconds of a random walk, ours and a dense matrix squared in PyTorch, side by side in one run.

    python benchmarks/random_walk.py --torch-python TORCHENV/bin/python

A map of 47 × 63 (an image of 376 × 504 at stride 8), three classes, 2^8 steps. Both sides start
from the affinities of the pairs and use the same number of threads; they take turns. The time of
compiling ours is given apart. Prints a table in Markdown. Without an interpreter that has PyTorch
only our side is measured.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import command, tables, worker

Run = Callable[[], tuple[float, float, np.ndarray]]
"""Seconds of wall and of processor time, and the scores after the walk."""


def make_case(height: int, width: int, classes: int) -> dict[str, np.ndarray]:
    """Scores and affinities like those of a network: high inside of regions, low between them."""
    import jax.numpy as jnp

    from wsss_jax.ops.pair_affinity import feature_affinity, pair_mask
    from wsss_jax.ops.path_index import pair_offsets

    rng = np.random.default_rng(0)
    regions = rng.random((4, 5, 16)).repeat(-(-height // 4), 0).repeat(-(-width // 5), 1)
    features = regions[:height, :width] + 0.1 * rng.random((height, width, 16))
    affinity = np.asarray(feature_affinity(jnp.asarray(features[None], jnp.float32)))[0]
    pairs = np.asarray(pair_mask((height, width), jnp.asarray([[height, width]])))[0]
    return {
        "scores": rng.random((height, width, classes)).astype(np.float32),
        "affinity": affinity * pairs,
        "offsets": np.asarray(pair_offsets(), np.int32),
    }


def our_walk(case: dict[str, np.ndarray], beta: float, steps: int) -> Run:
    """Our side."""
    import jax

    from wsss_jax.ops.random_walk import random_walk

    offsets = tuple((int(dy), int(dx)) for dy, dx in case["offsets"])
    scores, affinity = jax.numpy.asarray(case["scores"][None]), case["affinity"][None]

    def run() -> tuple[float, float, np.ndarray]:
        wall, processor = time.perf_counter(), time.process_time()
        result = random_walk(scores, affinity, offsets=offsets, beta=beta, steps=steps)
        result = np.asarray(jax.block_until_ready(result))[0]
        return time.perf_counter() - wall, time.process_time() - processor, result

    return run


def main() -> None:
    parser = command.parser(__doc__)
    add = parser.add_argument
    add("--torch-python", help="interpreter of an environment with PyTorch")
    add("--height", type=int, default=47)
    add("--width", type=int, default=63)
    add("--classes", type=int, default=3)
    add("--doublings", type=int, default=8, help="t of the 2^t steps")
    add("--beta", type=float, default=8.0)
    add("--threads", type=int, default=1)
    add("--rounds", type=int, default=3, help="runs of the dense matrix; ours runs ten for each")
    options = parser.parse_args()
    alone = worker.why_not(options.torch_python, "torch")
    if alone and options.torch_python:
        parser.error(f"--torch-python: {alone}")
    worker.limit_threads(options.threads)
    os.environ["JAX_PLATFORMS"] = "cpu"  # before JAX is imported
    case = make_case(options.height, options.width, options.classes)
    ours = our_walk(case, options.beta, 2**options.doublings)
    seconds: dict[str, list[tuple[float, float]]] = {"ours": [], "dense": []}
    compiling = ours()[0]

    def turn() -> np.ndarray:
        found = np.zeros(0)
        for _ in range(10):
            *both, found = ours()
            seconds["ours"].append((both[0], both[1]))
        return found

    other, difference = "", ""
    if alone:
        for _ in range(options.rounds):
            turn()
    else:
        with tempfile.TemporaryDirectory() as name:
            settings = {key: getattr(options, key) for key in ("beta", "doublings", "threads")}
            np.savez(Path(name) / "case.npz", **case, **settings)
            found, answer = np.zeros(0), {}
            with worker.Worker(
                options.torch_python, "torch_random_walk.py", Path(name), options.threads
            ) as process:
                try:
                    for _ in range(options.rounds):
                        answer = process.ask("run")
                        seconds["dense"].append(answer["seconds"])
                        found = turn()
                except worker.WorkerEnded as error:
                    sys.exit(str(error))
            expected = np.load(Path(name) / "case_reference.npy")
        other = f", PyTorch {answer['torch']}"
        difference = f"Largest difference {np.abs(found - expected).max():.1e}; "

    print(f"{tables.machine(options.threads, 'jax', 'numpy')}{other}")
    print(f"PyTorch is left out: {alone}.\n" if alone else "")
    print(tables.head(("map", "classes", "steps", "time", "ours, s", "dense matrix, s", "ratio")))
    mine = np.median(seconds["ours"], axis=0)
    theirs = None if alone else np.median(seconds["dense"], axis=0)
    for column, kind in enumerate(("wall", "processor")):
        cells = [f"{options.height} × {options.width}", options.classes, 2**options.doublings, kind]
        cells += [f"{mine[column]:.4f}"]
        if theirs is None:
            cells += ["–", "–"]
        else:
            cells += [f"{theirs[column]:.2f}", f"**{theirs[column] / mine[column]:.0f}**"]
        print(tables.row(cells))
    print(f"\n{difference}compiling ours took {compiling:.1f} s.")


if __name__ == "__main__":
    main()
