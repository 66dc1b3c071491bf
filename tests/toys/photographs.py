"""A devkit of a few photographs with all that a recipe reads."""

from pathlib import Path


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
