"""Passes of single convolutions in PyTorch, channels-last: the other side of `conv_layers`.

Each line is a JSON object with ``part`` (the pass), ``side``, ``inputs``, ``outputs``, ``size``,
``stride`` and ``dilation``; the answer has the processor ``seconds`` of one call.
"""

import functools
import json
import os
import time
from collections.abc import Callable
from typing import Any

import torch  # pyright: ignore[reportMissingImports]

from benchmarks import worker
from wsss_jax.host.host_memory import keep_freed_memory


@functools.lru_cache(maxsize=1)
def prepared(line: str) -> Callable[[], Any]:
    """The pass that `line` describes."""
    layer = json.loads(line)
    inputs, outputs, size = layer["inputs"], layer["outputs"], layer["size"]
    stride, dilation = layer["stride"], layer["dilation"]
    padding = dilation * (size // 2)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape).to(memory_format=torch.channels_last)

    x = drawn(1, inputs, layer["side"], layer["side"])
    kernel = drawn(outputs, inputs, size, size)

    def forward() -> torch.Tensor:
        return torch.nn.functional.conv2d(x, kernel, None, stride, padding, dilation)

    if layer["part"] == "forward":
        return forward
    g = drawn(*forward().shape)
    wanted = [layer["part"] == "input gradient", layer["part"] == "kernel gradient", False]
    pairs = [[n, n] for n in (stride, padding, dilation)]
    return lambda: torch.ops.aten.convolution_backward(
        g, x, kernel, None, *pairs, False, [0, 0], 1, wanted
    )


def main() -> None:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    keep_freed_memory()

    def answer(line: str) -> dict[str, Any]:
        call = prepared(line)
        start = time.process_time()
        with torch.no_grad():
            call()
        return {"seconds": time.process_time() - start}

    worker.serve(answer)


if __name__ == "__main__":
    main()
