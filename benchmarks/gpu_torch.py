"""PyTorch's side of `gpu`: ``python gpu_torch.py '{"work": "step", ...}'`` on the first GPU.

The networks, losses and parameter groups are those of `torch_worker`. Prints what it finds as soon
as it has found it, one object of JSON per line.
"""

import functools
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import photographs, worker
from benchmarks.torch_worker import build, parameter_groups

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
MODES: dict[str, dict[str, Any]] = {
    "float32": {},  # the authors' way
    "tf32": {"tf32": True},
    "bfloat16": {"half": True},
    "compiled": {"half": True, "compiler": "default"},
    "max-autotune": {"half": True, "compiler": "max-autotune"},
}
"""How PyTorch runs: half precision comes with channels-last memory and autocasting."""


def wait() -> None:
    if CUDA:
        torch.cuda.synchronize()


def set_precision(tf32: bool) -> None:
    """Whether products and convolutions of float32 may be computed in TF32."""
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32


def ceilings(side: int, megabytes: int, turn: float) -> None:
    """TFLOP/s of a square product of normal random numbers, and GB/s of reading and writing."""
    for dtype in ("bfloat16", "tf32", "float32"):
        set_precision(dtype == "tf32")
        kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        left, right = (torch.randn(side, side, device=DEVICE, dtype=kind) for _ in range(2))
        out = torch.empty_like(left)
        seconds = worker.seconds_per_call(
            functools.partial(torch.matmul, left, right, out=out), wait, turn
        )
        worker.emit(**{f"tflops_{dtype}": 2 * side**3 / statistics.median(seconds) / 1e12})
    source = torch.ones(megabytes * 250_000, device=DEVICE)
    target = torch.empty_like(source)
    seconds = worker.seconds_per_call(lambda: target.copy_(source), wait, turn)
    worker.emit(gb_per_second=2 * megabytes / 1000 / statistics.median(seconds), **_peak())


def step(
    recipe: str,
    mode: str,
    batch: int,
    stage: str,
    twin: dict[str, Any],
    turn: float,
    crop: int = 0,
) -> None:
    """A recipe's training step: the first steps, time and memory. Weights are PyTorch's own."""
    how = MODES[mode]
    half, batch, crop = how.get("half", False), batch or twin["batch"], crop or twin["crop"]
    set_precision(how.get("tf32", False) or half)
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    layout = torch.channels_last if half else torch.contiguous_format
    network = build(twin).to(DEVICE, memory_format=layout).train()
    sgd = twin["optimizer"]
    optimizer = torch.optim.SGD(
        parameter_groups(network, twin["rules"], sgd),
        lr=sgd["lr"],
        momentum=sgd["momentum"],
        fused=CUDA,
    )
    images, valid, labels = _batch(twin["num_classes"], batch, crop)
    images = images.contiguous(memory_format=layout)
    loss_of = network.loss
    if "compiler" in how:
        loss_of = torch.compile(loss_of, mode=how["compiler"])
    last: list[torch.Tensor] = []

    def call() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=half):
            loss = loss_of(images, valid, labels)
        loss.backward()
        optimizer.step()
        last[:] = [loss.detach()]

    worker.emit(batch=batch, crop=crop)
    start = time.perf_counter()
    call()
    wait()
    worker.emit(compile_seconds=time.perf_counter() - start)
    seconds = worker.seconds_per_call(call, wait, turn)
    if not torch.isfinite(last[0]):
        sys.exit(f"{recipe}: expected a finite loss, found {last[0].item()}")
    worker.emit(step_seconds=statistics.median(seconds), all_seconds=seconds, **_peak())


def _batch(classes: int, size: int, crop: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random images, masks of valid pixels and labels with 1.5 classes on average."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (size, 3, crop, crop), np.uint8))
    label = np.eye(classes, dtype=np.float32)[rng.integers(0, classes, size)]
    label[::2] = np.maximum(label[::2], label[::-1][: len(label[::2])])
    valid = torch.ones(size, crop, crop, dtype=torch.bool)
    return images.to(DEVICE), valid.to(DEVICE), torch.from_numpy(label).to(DEVICE)


def inference(
    recipe: str,
    dtype: str,
    folder: str,
    images: int,
    longest: int,
    twin: dict[str, Any],
    turn: float,
    scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0),
) -> None:
    """Images per second of maps over scales and flips: from files to files, and the network alone.

    The authors' way, with what PyTorch offers for speed: threads decode and scale images ahead and
    write files, an image and its flip share a batch, and maps are upsampled and summed on the GPU.
    """
    here = Path(folder)
    voc = photographs.devkit(here, images, longest)
    paths = sorted((voc / "JPEGImages").glob("*.jpg"))
    half = dtype == "bfloat16"
    set_precision(True)
    torch.backends.cudnn.benchmark = True  # there are few sizes, and the first pass tries them
    network = build(twin).to(DEVICE, memory_format=torch.channels_last).eval()
    target = here / "torch_cams"
    target.mkdir(exist_ok=True)

    def views(path: Path) -> tuple[Path, tuple[int, int], list[torch.Tensor], np.ndarray]:
        with (
            Image.open(path) as image,
            Image.open(voc / "SegmentationClass" / f"{path.stem}.png") as mask,
        ):
            picture, present = image.convert("RGB"), np.unique(np.asarray(mask, np.int64))[1:] - 1
        found = []
        for scale in scales:
            size = (round(picture.width * scale), round(picture.height * scale))
            pixels = np.asarray(picture.resize(size, Image.Resampling.BICUBIC))
            both = torch.from_numpy(np.stack([pixels, pixels[:, ::-1]]))
            found.append(both.pin_memory() if CUDA else both)
        return path, (picture.height, picture.width), found, present

    @torch.inference_mode()
    def summed(size: tuple[int, int], pixels: list[torch.Tensor], present: np.ndarray) -> Any:
        total: Any = 0
        for both in pixels:
            x = both.to(DEVICE, non_blocking=True).permute(0, 3, 1, 2)
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=half):
                maps = network.maps(network.normalize(x, torch.ones_like(x[:, 0], dtype=bool)))
            maps = maps[:, torch.from_numpy(present).to(DEVICE)].float()
            maps = F.interpolate(maps, size, mode="bilinear", align_corners=False)
            total = total + maps[0] + maps[1].flip(-1)
        total = F.relu(total)
        low, high = total.amin((1, 2), keepdim=True), total.amax((1, 2), keepdim=True)
        return F.relu(total - low - 1e-5) / (high - low + 1e-5)

    def save(path: Path, keys: np.ndarray, cam: np.ndarray) -> None:
        # The files of our stage.
        with (target / f"{path.stem}.npz").open("wb") as file:
            np.savez_compressed(file, keys=keys.astype(np.int32), cam=cam.astype(np.float16))

    def stage() -> float:
        start = time.perf_counter()
        with ThreadPoolExecutor() as pool:
            saved = []
            for path, size, pixels, present in _ahead(pool, views, paths):
                cam = summed(size, pixels, present).cpu().numpy()
                saved.append(pool.submit(save, path, present, cam))
            for one in saved:
                one.result()
        return time.perf_counter() - start

    worker.emit(images=len(paths), stage_seconds=[stage() for _ in range(2)], **_peak())
    _, size, pixels, present = views(paths[0])
    placed = [both.to(DEVICE) for both in pixels]
    seconds = worker.seconds_per_call(lambda: summed(size, placed, present), wait, turn)
    worker.emit(network_images_per_second=1 / statistics.median(seconds), **_peak())


def _ahead(
    pool: ThreadPoolExecutor, prepare: Any, items: list[Any], count: int = 8
) -> Iterator[Any]:
    """Results in order, of which `count` are prepared before they are asked for."""
    rest = iter(items)
    waiting = [pool.submit(prepare, item) for item in itertools.islice(rest, count)]
    while waiting:
        yield waiting.pop(0).result()
        waiting += [pool.submit(prepare, item) for item in itertools.islice(rest, 1)]


def _peak() -> dict[str, Any]:
    """The device and the most memory in use; on a CPU, this process's."""
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if CUDA else "cpu",
        "versions": {"torch": torch.__version__, "cuda": torch.version.cuda},
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if CUDA else worker.peak_gib(),
    }
    if CUDA:
        found["cudnn"] = torch.backends.cudnn.version()
    return found


WORKS = {work.__name__: work for work in (ceilings, step, inference)}


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    WORKS[arguments.pop("work")](**arguments)
