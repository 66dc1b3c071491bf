"""VOC-shaped folders of three small images."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss_jax.data.class_names import VOC_CLASSES
from wsss_jax.data.masks import encode_mask
from wsss_jax.data.sets.base import DataSettings
from wsss_jax.data.source import Source
from wsss_jax.errors import UserError

IDS = ("2007_000001", "2007_000002", "2007_000003")
CAT, COW, DOG = (VOC_CLASSES.index(name) + 1 for name in ("cat", "cow", "dog"))
OBJECTS = {"2007_000001": (CAT,), "2007_000002": (CAT, DOG), "2007_000003": ()}


def jpeg(seed: int, height: int = 12, width: int = 16) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def objects_mask(objects: tuple[int, ...], height: int = 12, width: int = 16) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[0] = 255
    for row, index in enumerate(objects, 1):
        mask[row, :5] = index
    return mask


class Devkit:
    """A VOCdevkit with three images, in `train.txt`, and prepared records beside it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.voc = folder / "VOCdevkit" / "VOC2012"
        for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
            (self.voc / name).mkdir(parents=True)
        for seed, name in enumerate(IDS):
            self.image(name).write_bytes(jpeg(seed))
            self.mask(name).write_bytes(encode_mask(objects_mask(OBJECTS[name])))
        self.list("train", *IDS)

    def image(self, name: str) -> Path:
        return self.voc / "JPEGImages" / f"{name}.jpg"

    def mask(self, name: str, folder: str = "SegmentationClass") -> Path:
        return self.voc / folder / f"{name}.png"

    def list(self, split: str, *lines: str) -> None:
        path = self.voc / "ImageSets" / "Segmentation" / f"{split}.txt"
        path.write_text("".join(f"{line}\n" for line in lines))

    def labels(self, text: str, name: str = "labels.csv") -> str:
        (self.folder / name).write_text(text)
        return str(self.folder / name)

    def annotate(self, name: str, *objects: str) -> None:
        path = self.voc / "Annotations" / f"{name}.xml"
        path.parent.mkdir(exist_ok=True)
        inner = "".join(f"<object><name>{text}</name></object>" for text in objects)
        path.write_text(f"<annotation>{inner}</annotation>")

    def open(self, split: str = "train", **options: str | int | float) -> Source:
        data = {
            "builder": "voc2012",
            "root": str(self.voc.parent),
            "labels": "",
            "data_dir": str(self.folder / "prepared"),
        }
        return DataSettings.from_config(data | options, "data").open(split)

    def refuse(self, split: str = "train", **options: str | int | float) -> str:
        before = self._prepared()
        with pytest.raises(UserError) as caught:
            self.open(split, **options)
        message = str(caught.value)
        assert "expected" in message and "found" in message and "\n" not in message
        assert self._prepared() == before, "something was left behind"
        return message

    def _prepared(self) -> set[Path]:
        return set(self.folder.glob("prepared/*/*/[0-9]*"))


def shown(source: Source) -> list[set[str]]:
    labels = (source[index]["label"] for index in range(len(source)))
    return [{source.classes[k] for k in np.flatnonzero(label)} for label in labels]
