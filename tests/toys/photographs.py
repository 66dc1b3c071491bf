"""Small folders of images with all that a recipe reads."""

from pathlib import Path

import numpy as np
from PIL import Image

from wsss_jax.data.shapes import CLASSES, render


def drawn_photographs(folder: Path, count: int) -> list[str]:
    """Overrides that point a recipe at a folder of one's own: images, a list, a CSV and classes.

    The images are pictures of the built-in data set, cut to different sizes.
    """
    (folder / "JPEGImages").mkdir(parents=True)
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    rows, ids = [], [f"photo_{index}" for index in range(count)]
    for index, name in enumerate(ids):
        image, mask = (pixels[: 96 - 7 * index] for pixels in render(index, "train", 0, 96))
        Image.fromarray(image).save(folder / "JPEGImages" / f"{name}.jpg", quality=95)
        rows.append(",".join([name, *(CLASSES[k - 1] for k in np.unique(mask[mask > 0]))]))
    (folder / "labels.csv").write_text("\n".join(["id,class", *rows]))
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    (folder / "ImageSets" / "Segmentation" / "train.txt").write_text("\n".join(ids))
    return [
        f"--config.data.root={folder}",
        f"--config.data.labels={folder / 'labels.csv'}",
        f"--config.data.classes={folder / 'classes.txt'}",
        f"--config.data.data_dir={folder / 'prepared'}",
    ]


def few_photographs(shared: Path, folder: Path, count: int) -> list[str]:
    """Overrides that point a recipe at the first `count` images of train and of val.

    The splits train_aug and test hold the images of train and val.
    """
    source = shared / "data" / "voc_mini" / "VOCdevkit" / "VOC2012"
    devkit = folder / "VOCdevkit" / "VOC2012"
    lists = devkit / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name in ("JPEGImages", "SegmentationClass", "SegmentationClassAug"):
        (devkit / name).symlink_to(source / name)
    for split, same in (("train", "train_aug"), ("val", "test")):
        ids = (source / "ImageSets/Segmentation" / f"{split}.txt").read_text().split()[:count]
        for name in (split, same):
            (lists / f"{name}.txt").write_text("\n".join(ids))
    return [
        f"--config.data.root={devkit}",
        f"--config.data.labels={shared / 'data/lists/cls_labels.npy'}",
        f"--config.data.data_dir={folder / 'data'}",
        "--config.protocol=present",
    ]
