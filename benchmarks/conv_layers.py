"""Processor time of the convolutions of ResNet38: XLA's own, ours and PyTorch's, in one run.

    python benchmarks/conv_layers.py --torch-python TORCHENV/bin/python

One image at crop 448, or at 134, the smaller image of SEAM, with ``--crop 134``. The forward pass
and the gradients of the input and of the kernel are measured one by one, in float32. The three
sides take turns, and each figure is the fastest of the rounds. On one thread, processor time is
hardly affected by what else the machine does. Prints a table in Markdown.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import command, tables, worker

LAYERS = {  # stride of the input, input and output channels, size, stride, dilation
    "b2_1": (2, 128, 128, 3, 1, 1),
    "b3_1": (4, 256, 256, 3, 1, 1),
    "b4": (4, 256, 512, 3, 2, 1),
    "b4_1": (8, 512, 512, 3, 1, 1),
    "b5_1": (8, 1024, 512, 3, 1, 2),
    "b6": (8, 512, 1024, 3, 1, 4),
    "b7": (8, 1024, 2048, 3, 1, 4),
    "b7, 1×1": (8, 2048, 4096, 1, 1, 1),
}
PASSES = ("forward", "input gradient", "kernel gradient")


def compiled(convolve: Callable[..., Any], layer: dict[str, Any], part: str) -> Callable[[], Any]:
    """One pass of a layer with random numbers, compiled, as a function that waits for its end."""
    import jax
    import numpy as np

    rng = np.random.default_rng(0)
    side, size, inputs = layer["side"], layer["size"], layer["inputs"]
    reach = layer["dilation"] * (size // 2)
    settings = (layer["stride"], layer["dilation"], ((reach, reach), (reach, reach)))

    def run(x: Any, kernel: Any, g: Any) -> Any:
        if part == "forward":
            return convolve(x, kernel, *settings)
        if part == "input gradient":
            return jax.vjp(lambda x: convolve(x, kernel, *settings), x)[1](g)
        return jax.vjp(lambda kernel: convolve(x, kernel, *settings), kernel)[1](g)

    x = rng.standard_normal((1, side, side, inputs), np.float32)
    kernel = rng.standard_normal((size, size, inputs, layer["outputs"]), np.float32)
    shape = jax.eval_shape(lambda *a: convolve(*a, *settings), x, kernel).shape
    arrays = jax.device_put((x, kernel, rng.standard_normal(shape, np.float32)))
    program = jax.jit(run).lower(*arrays).compile()
    return lambda: jax.block_until_ready(program(*arrays))


def processor_seconds(call: Callable[[], Any]) -> float:
    """Processor time of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    parser = command.parser(__doc__)
    add = parser.add_argument
    add("--torch-python", help="interpreter of an environment with PyTorch")
    add("--crop", type=int, default=448, help="side of the image in pixels")
    add("--layers", nargs="+", default=list(LAYERS), choices=list(LAYERS), metavar="LAYER")
    add("--divide", type=int, default=1, help="divides the channels, to try the program out")
    add("--threads", type=int, default=1)
    add("--rounds", type=int, default=5)
    options = parser.parse_args()
    alone = worker.why_not(options.torch_python, "torch")
    if alone and options.torch_python:
        parser.error(f"--torch-python: {alone}")
    worker.limit_threads(options.threads)
    os.environ["JAX_PLATFORMS"] = "cpu"  # before JAX is imported

    from wsss_jax.host.host_memory import keep_freed_memory
    from wsss_jax.ops.conv import conv
    from wsss_jax.ops.xla_conv import xla_conv

    keep_freed_memory()
    print(tables.machine(options.threads, "jax", "numpy"))
    print(f"PyTorch is left out: {alone}.\n" if alone else "")
    columns = ("layer", "pass", "XLA, ms", "ours, ms", "PyTorch, ms", "ratio", "GFLOP/s, ours")
    print(tables.head(columns))

    def measure(process: worker.Worker | None) -> None:
        for name in options.layers:
            stride_so_far, inputs, outputs, size, stride, dilation = LAYERS[name]
            layer = {
                "side": -(-options.crop // stride_so_far),
                "inputs": inputs // options.divide,
                "outputs": outputs // options.divide,
                "size": size,
                "stride": stride,
                "dilation": dilation,
            }
            taps = size**2 * layer["inputs"] * layer["outputs"]
            flops = 2 * (-(-layer["side"] // stride)) ** 2 * taps
            for part in PASSES:
                calls = [compiled(convolve, layer, part) for convolve in (xla_conv, conv)]
                seconds: list[list[float]] = [[], [], []]
                for _ in range(options.rounds + 1):
                    for call, one in zip(calls, seconds, strict=False):
                        one.append(processor_seconds(call))
                    if process:
                        seconds[2].append(
                            process.ask(json.dumps({"part": part, **layer}))["seconds"]
                        )
                # The first round of each side is a warm-up.
                xla, ours, *other = (min(one[1:]) for one in seconds if one)
                cells = [name, part, f"{1e3 * xla:.1f}", f"{1e3 * ours:.1f}"]
                cells += [f"{1e3 * other[0]:.1f}", f"**{other[0] / ours:.2f}**"] if other else "––"
                print(tables.row([*cells, f"{flops / ours / 1e9:.0f}"]), flush=True)

    if alone:
        return measure(None)
    with (
        tempfile.TemporaryDirectory() as name,
        worker.Worker(
            options.torch_python, "torch_conv_layers.py", Path(name), options.threads
        ) as process,
    ):
        try:
            measure(process)
        except worker.WorkerEnded as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
