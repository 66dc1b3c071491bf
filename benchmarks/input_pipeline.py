"""Images per second of the training input, next to a plain PIL and NumPy pipeline.

Both read the same JPEG bytes from memory with the same number of threads and do the augmentation of
the recipe `seam_voc`: a random long side, a flip, color jitter, a crop. The plain one works through
the steps as they are published, on PIL images, and yields normalized float32; ours yields uint8
with a validity mask, since the device normalizes. The two take turns, so that other load meets
both.

    python benchmarks/input_pipeline.py --root VOCdevkit/VOC2012
"""

import dataclasses
import io
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import command, tables, training
from wsss_jax.data.augment import Augment
from wsss_jax.data.images import decode_image
from wsss_jax.data.loader import training_batches
from wsss_jax.data.source import Record

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


class Memory:
    """JPEG files held in memory."""

    classes: tuple[str, ...] = ("object",)
    digest = ""

    def __init__(self, paths: list[Path]):
        self.ids = [path.stem for path in paths]
        self.files = [path.read_bytes() for path in paths]
        self.sizes = [decode_image(data, "").shape[:2] for data in self.files]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Record:
        label = np.ones(1, np.float32)
        return Record(
            id=self.ids[index],
            image=self.files[index],
            size=self.sizes[index],
            label=label,
            segmentation=None,
        )


def turn_hue(image: Image.Image, shift: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    turned = np.array(hue) + np.uint8(int(shift * 255) % 256)
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")


def plain_example(data: bytes, augment: Augment, rng: np.random.Generator) -> np.ndarray:
    """One image through the published steps, float32 [crop, crop, 3]."""
    side, jitter = augment.crop, (augment.brightness, augment.contrast, augment.saturation)
    image = Image.open(io.BytesIO(data)).convert("RGB")
    low, high = augment.long_side or (max(image.size),) * 2
    factor = rng.integers(low, high, endpoint=True) / max(image.size)
    size = (round(image.width * factor), round(image.height * factor))
    image = image.resize(size, Image.Resampling.BICUBIC)
    if rng.random() < augment.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for step in rng.permutation(4):
        if step == 3:
            image = turn_hue(image, rng.uniform(-augment.hue, augment.hue))
        else:
            factor = rng.uniform(1 - jitter[step], 1 + jitter[step])
            image = enhancers[step](image).enhance(factor)
    array = (np.asarray(image, np.float32) / 255 - MEAN) / STD
    crop = np.zeros((side, side, 3), np.float32)
    read, write = [], []
    for length in array.shape[:2]:
        offset = int(rng.integers(abs(length - side), endpoint=True))
        shown = min(length, side)
        read.append(slice(offset, offset + side) if length >= side else slice(0, length))
        write.append(slice(0, side) if length >= side else slice(offset, offset + shown))
    crop[tuple(write)] = array[tuple(read)]
    return crop


def plain_batches(
    source: Memory, augment: Augment, batch_size: int, threads: int
) -> Iterator[np.ndarray]:
    """Endless batches; a pool of threads keeps some ready."""
    rng = np.random.default_rng(0)

    def load(indices: np.ndarray, seed: int) -> np.ndarray:
        own = np.random.default_rng(seed)
        return np.stack([plain_example(source.files[i], augment, own) for i in indices])

    with ThreadPoolExecutor(threads) as pool:
        pending = []
        while True:
            while len(pending) < 4:
                indices = rng.integers(len(source), size=batch_size)
                pending.append(pool.submit(load, indices, int(rng.integers(2**32))))
            yield pending.pop(0).result()


def measure(make: Callable[[], Iterator], batch_size: int, images: int) -> tuple[float, float]:
    """Images per second, and milliseconds of processor time per image."""
    stream = make()
    for _ in range(6):  # past the batches that were ready before the clock started
        next(stream)
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(images // batch_size):
        next(stream)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    count = images // batch_size * batch_size
    close = getattr(stream, "close", None)
    if close:
        close()
    return count / wall, 1000 * processor / count


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder that holds JPEGImages")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--images", type=int, default=200, help="measured per round")
    parser.add_argument("--crop", type=int, default=0, help="side of a crop (0: the recipe's)")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    paths = sorted((options.root / "JPEGImages").glob("*.jpg"))[:200]
    if len(paths) < options.batch_size:
        parser.error(
            f"expected at least {options.batch_size} JPEG files in {options.root}/JPEGImages"
        )
    source = Memory(paths)
    size, threads, augment = options.batch_size, options.threads, training.augmentation("seam_voc")
    if options.crop:  # the long side shrinks with it
        shrink = options.crop / augment.crop
        low, high = (round(side * shrink) for side in augment.long_side or ())
        augment = dataclasses.replace(augment, crop=options.crop, long_side=(low, high))

    def ours() -> Iterator:
        return training_batches(
            source, batch_size=size, augment=augment, seed=0, num_threads=threads
        )

    pipelines = {
        "PIL + NumPy, float32": lambda: plain_batches(source, augment, size, threads),
        "wsss_jax, uint8": ours,
    }
    results = {name: [] for name in pipelines}
    for _ in range(options.rounds):
        for name, make in pipelines.items():
            results[name].append(measure(make, size, options.images))
    print(tables.machine(threads, "grain", "numpy", "opencv-python-headless", "pillow"))
    print(f"median of {options.rounds} rounds of {options.images} images from {len(source)} files,")
    print(f"batch {size}, crop {augment.crop}\n")
    print(tables.head(("pipeline", "images/s", "processor ms/image")))
    for name, rounds in results.items():
        rate, cost = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(tables.row((name, f"{rate:.0f}", f"{cost:.1f}")))


if __name__ == "__main__":
    main()
