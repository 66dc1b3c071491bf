"""Seconds of a random walk, ours and a dense matrix squared in PyTorch, side by side in one run.

    python benchmarks/random_walk.py --torch-python TORCHENV/bin/python

A map of 47 × 63 (an image of 376 × 504 at stride 8), three classes, 2^8 steps. Both sides start
from the affinities of the pairs and use the same number of threads; they take turns. The time of
compiling ours is given apart. Prints a table in Markdown.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))


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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--torch-python", required=True, help="interpreter of an environment with PyTorch")
    add("--height", type=int, default=47)
    add("--width", type=int, default=63)
    add("--classes", type=int, default=3)
    add("--doublings", type=int, default=8, help="t of the 2^t steps")
    add("--beta", type=float, default=8.0)
    add("--threads", type=int, default=1)
    add("--rounds", type=int, default=3, help="runs of the dense matrix; ours runs ten for each")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # XLA takes as many threads as it may use processors
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    from wsss_jax.ops.random_walk import random_walk

    case = make_case(options.height, options.width, options.classes)
    offsets = tuple((int(dy), int(dx)) for dy, dx in case["offsets"])
    scores, affinity = jax.numpy.asarray(case["scores"][None]), case["affinity"][None]

    def ours() -> tuple[float, float, np.ndarray]:
        wall, processor = time.perf_counter(), time.process_time()
        result = random_walk(
            scores, affinity, offsets=offsets, beta=options.beta, steps=2**options.doublings
        )
        result = np.asarray(jax.block_until_ready(result))[0]
        return time.perf_counter() - wall, time.process_time() - processor, result

    with tempfile.TemporaryDirectory() as name:
        settings = {key: getattr(options, key) for key in ("beta", "doublings", "threads")}
        np.savez(Path(name) / "case.npz", **case, **settings)
        compiling = ours()[0]
        seconds: dict[str, list[tuple[float, float]]] = {"ours": [], "dense": []}
        process = subprocess.Popen(
            [options.torch_python, str(HERE / "torch_random_walk.py"), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(options.threads)},
        )
        assert process.stdin is not None and process.stdout is not None
        found, answer = np.zeros(0), {}
        for _ in range(options.rounds):
            process.stdin.write("run\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                sys.exit("the reference's process ended: see its message above")
            answer = json.loads(line)
            seconds["dense"].append(answer["seconds"])
            for _ in range(10):
                *both, found = ours()
                seconds["ours"].append((both[0], both[1]))
        process.stdin.close()
        process.wait()
        expected = np.load(Path(name) / "case_reference.npy")

    medians = {side: np.median(values, axis=0) for side, values in seconds.items()}
    ratio = medians["dense"] / medians["ours"]
    print(
        f"{platform.processor() or platform.machine()}, {options.threads} thread(s), Python"
        f" {platform.python_version()}, JAX {jax.__version__}, PyTorch {answer['torch']}\n\n"
        f"| map | classes | steps | time | ours, s | dense matrix, s | ratio |\n"
        "|---|---|---|---|---|---|---|"
    )
    for column, kind in enumerate(("wall", "processor")):
        print(
            f"| {options.height} × {options.width} | {options.classes} | {2**options.doublings} |"
            f" {kind} | {medians['ours'][column]:.4f} | {medians['dense'][column]:.2f} |"
            f" **{ratio[column]:.0f}** |"
        )
    print(
        f"\nLargest difference {np.abs(found - expected).max():.1e}; compiling ours took"
        f" {compiling:.1f} s."
    )


if __name__ == "__main__":
    main()
