"""Programs that stages run on devices, and compiling them to learn what they cost."""

import contextlib
import dataclasses
import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax

from wsss_jax.accelerators import chips, compiled, gpu, hlo
from wsss_jax.accelerators.compiled import ProgramCost
from wsss_jax.errors import UserError
from wsss_jax.files import write_json
from wsss_jax.records import read_record


@dataclasses.dataclass(frozen=True)
class DeviceProgram:
    """A program that a stage runs on devices, lowered from shapes alone.

    Attributes:
      name: what it does, such as ``training step``.
      lower: a function that lowers it for a number of images over all devices.
      images: the number of images of an execution, counting every scale and flip.
      asked: the number of images that the recipe asks for, which `devices` might not share equally.
      executions: how often the stage runs it, or None if that is not known.
      devices: the number of devices that run it together.
      growing: whether memory should be known for other numbers of images, too.
      pixels: the padded pixels of an image if the stage chooses them with ``batch_pixels``, or 0.
      remarks: what the user should know about it.
    """

    name: str
    lower: Callable[[int], jax.stages.Lowered]
    images: int
    asked: int
    executions: int | None
    devices: int
    growing: bool = False
    pixels: int = 0
    remarks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class TooLarge:
    """A program that does not fit into the memory of a device.

    Attributes:
      needed: the bytes that it needs at the least, or None if the compiler does not tell.
    """

    needed: int | None


class Compiler:
    """Compiles programs and keeps their costs, in memory and in a folder.

    JAX's own cache of compiled programs cannot be read for devices that are not at hand.

    Args:
      key: what the costs depend on besides the program, such as the topology.
      folder: the folder of the costs, or None to keep none.
      log: a function that prints progress.
      options: what the compiler has to be told; see `topology.compiler_options`.

    Attributes:
      last_seconds: the time that the last program took that was compiled here.
    """

    def __init__(
        self,
        key: str,
        folder: Path | None,
        log: Callable[[str], None],
        options: Mapping[str, Any] = MappingProxyType({}),
    ):
        self._key, self._folder, self._log = f"{key} {_versions()}", folder, log
        self._options = dict(options)
        self._known: dict[str, ProgramCost | TooLarge] = {}
        self.last_seconds = 0.0

    def cost(self, label: str, lowered: jax.stages.Lowered) -> ProgramCost | TooLarge:
        """Returns the cost of a program, which `label` names in messages."""
        text = f"{self._key}\n{lowered.as_text()}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:24]
        if digest not in self._known:
            path = self._folder and self._folder / f"{digest}.json"
            kept = _kept(path) if path and path.is_file() else None
            if kept is not None:
                self._known[digest] = kept
            else:
                self._known[digest] = found = self._compiled(label, lowered)
                if path:
                    _write(path, found)
        return self._known[digest]

    def _compiled(self, label: str, lowered: jax.stages.Lowered) -> ProgramCost | TooLarge:
        self._log(f"compiling {label}")
        start = time.monotonic()
        try:
            found = ProgramCost.of(lowered.compile(compiler_options=self._options or None))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            found = TooLarge(_needed(str(error)))
        self.last_seconds = time.monotonic() - start
        self._log(f"compiled {label} in {self.last_seconds:.0f} s")
        return found


def most_images(peaks: Sequence[tuple[int, int]], limit: int | float) -> int | None:
    """Returns the most images per device whose peak memory is at most `limit` bytes.

    Memory is taken to be affine in the number of images.

    Args:
      peaks: (images per device, bytes of memory) of two programs or more; the outer two count.
      limit: the memory of a device in bytes.

    Returns:
      The number, which may be 0, or None if memory does not grow with the images.
    """
    (few, low), *_, (many, high) = sorted(peaks)
    slope = (high - low) / (many - few)
    return max(int(few + (limit - low) / slope), 0) if slope > 0 else None


def _needed(message: str) -> int | None:
    found = re.search(r"\(([\d.]+)([KMG])\) exceeds|Used ([\d.]+)([KMG]) of", message)
    if not found:
        return None
    number, unit = (part for part in found.groups() if part)
    return int(float(number) * 2 ** {"K": 10, "M": 20, "G": 30}[unit])


def _versions() -> str:
    """Returns what makes kept costs worthless when it changes: compilers, and how they are read."""
    found = [os.environ.get(n, "") for n in ("TPU_LIBRARY_PATH", "LIBTPU_INIT_ARGS", "XLA_FLAGS")]
    for package in ("jax", "jaxlib", "libtpu", "jax-cuda13-pjrt", "jax-cuda12-pjrt"):
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    sources = (Path(str(module.__file__)).read_bytes() for module in (chips, compiled, gpu, hlo))
    return ", ".join([*found, hashlib.sha256(b"".join(sources)).hexdigest()])


def _kept(path: Path) -> ProgramCost | TooLarge | None:
    """Returns the cost in a file, or None if it is damaged."""
    try:
        plain = read_record(path, {}, "", {"needed": int | None})
        return TooLarge(plain["needed"]) if "needed" in plain else ProgramCost.from_json(plain)
    except (UserError, KeyError, TypeError, ValueError):
        return None


def _write(path: Path, found: ProgramCost | TooLarge) -> None:
    with contextlib.suppress(OSError, UserError):  # A home that is read-only has no cache.
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, dataclasses.asdict(found))
