"""A folder in VOC's layout with drawn photographs, for programs that read files.

Needs NumPy and Pillow alone, for it runs in both environments.
"""

from pathlib import Path

import numpy as np
from PIL import Image

SIDES = ((1.0, 0.75), (0.75, 1.0), (1.0, 2 / 3))
"""Width and height over the longer side of most of VOC's photographs."""


def devkit(folder: Path, images: int, longest: int) -> Path:
    """Draws `images` photographs with masks of one or two classes, for all splits; once.

    Returns:
      The folder VOC2012, in which ``train``, ``train_aug`` and ``val`` list the same images.
    """
    voc = folder / "VOCdevkit" / "VOC2012"
    lists = voc / "ImageSets" / "Segmentation"
    if lists.is_dir():
        return voc
    rng = np.random.default_rng(0)
    names = []
    for name in ("JPEGImages", "SegmentationClass"):
        (voc / name).mkdir(parents=True, exist_ok=True)
    for number in range(images):
        width, height = (round(longest * side) for side in SIDES[number % len(SIDES)])
        # Noise of few pixels, upsampled: its file is about as large as a photograph's.
        coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        mask = np.zeros((height, width), np.uint8)
        mask[height // 4 : height // 2, width // 4 : width // 2] = number % 20 + 1
        if number % 2:
            mask[height // 2 : -height // 8, width // 2 :] = (number + 7) % 20 + 1
        names.append(f"2007_{number:06d}")
        picture.save(voc / "JPEGImages" / f"{names[-1]}.jpg", quality=90)
        Image.fromarray(mask).save(voc / "SegmentationClass" / f"{names[-1]}.png")
    lists.mkdir(parents=True)
    for split in ("train", "train_aug", "val"):
        (lists / f"{split}.txt").write_text("\n".join(names))
    return voc
