"""Reads checkpoints in PyTorch's older form, which `torch.save` wrote until version 1.6."""

import mmap
import re
from pathlib import Path

from wsss_jax.data.formats.torch_pickle import STORAGE_MAGIC, read_legacy
from wsss_jax.weights.formats.content import Content, Numbers
from wsss_jax.weights.formats.tensor_pickle import NAMES

_NUMBER = STORAGE_MAGIC.to_bytes(10, "little")
MAGIC = re.compile(rb"\x80[\x02-\x05](\x95.{8})?\x8a\x0a" + re.escape(_NUMBER), re.DOTALL)
"""The beginning of a file: the pickle of PyTorch's magic number, in any protocol with bytes."""


def read(path: Path) -> Content:
    """Returns what was saved; tensors are read when they are needed."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        view = memoryview(data)
        try:
            value = read_legacy(view, NAMES, Numbers(path).read)
        finally:
            view.release()
    return Content(value if isinstance(value, dict) else {"": value})
