"""Reads checkpoints in PyTorch's older form, which `torch.save` wrote until version 1.6."""

import mmap
from pathlib import Path

from wsss_jax.data.formats.torch_pickle import read_legacy
from wsss_jax.weights.formats.content import Content, Numbers
from wsss_jax.weights.formats.tensor_pickle import NAMES

MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""The pickle of PyTorch's magic number, except for its last opcode."""


def read(path: Path) -> Content:
    """Returns what was saved; tensors are read when they are needed."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        view = memoryview(data)
        try:
            value = read_legacy(view, NAMES, Numbers(path).read)
        finally:
            view.release()
    return Content(value if isinstance(value, dict) else {"": value})
