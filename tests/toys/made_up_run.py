"""The folder that a small, made-up run leaves behind, and a reader of the page made from it."""

import dataclasses
import io
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from tests.reference.confusion import confusion_matrix, confusion_scores
from wsss_jax.data.formats.cam_files import write_cams
from wsss_jax.data.masks import encode_mask
from wsss_jax.data.source import Record
from wsss_jax.errors import UserError
from wsss_jax.files import write_json
from wsss_jax.pipeline import graph
from wsss_jax.stages.base import Context
from wsss_jax.training.metrics import MetricWriter

# Names that would break a page which does not escape them.
CLASSES = ("cat", 'x"><script>alert(1)</script>')
EVIL_ID = "<img src=x onerror=alert(2)>"
IDS = [*(f"scene_{number}" for number in range(7)), EVIL_ID]
NAMES = ("background", *CLASSES)
SIZE = (40, 56)
THRESHOLDS = [round(0.01 * step, 2) for step in range(60)]


class DrawnSource:
    """Discs of one or two classes on a gradient."""

    ids: list[str] = IDS
    sizes: list[tuple[int, int]] = [SIZE] * len(IDS)
    classes: tuple[str, ...] = CLASSES
    digest: str = "drawn"

    def __len__(self) -> int:
        return len(IDS)

    def __getitem__(self, index: int) -> Record:
        truth = drawn_truth(index)
        image = np.repeat(np.linspace(30, 220, SIZE[1], dtype=np.uint8)[None], SIZE[0], axis=0)
        image = np.repeat(image[..., None], 3, axis=-1)
        image[truth == 1] = (220, 120, 40)
        image[truth == 2] = (40, 120, 220)
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        label = np.array([(truth == 1).any(), (truth == 2).any()], np.float32)
        encoded = encode_mask(truth)
        return Record(
            id=IDS[index], image=file.getvalue(), size=SIZE, label=label, segmentation=encoded
        )


class Unlabeled(DrawnSource):
    """The same images without ground truth."""

    def __getitem__(self, index: int) -> Record:
        return {**super().__getitem__(index), "segmentation": None}


@dataclasses.dataclass(frozen=True)
class DrawnContext(Context):
    def source(self, split: str) -> DrawnSource:
        return DrawnSource()


def report_context(config: Any, workdir: Path) -> DrawnContext:
    return DrawnContext(config, workdir, "report", workdir / "report", stages=graph.stages(config))


class LostContext(DrawnContext):
    def source(self, split: str) -> DrawnSource:
        raise UserError("expected images in /gone, found no folder: set data.root")


def drawn_truth(index: int) -> np.ndarray:
    truth = np.zeros(SIZE, np.uint8)
    cv2.circle(truth, (14 + index, 20), 9, 255, -1)
    cv2.circle(truth, (14 + index, 20), 8, 1, -1)
    if index % 2:
        cv2.circle(truth, (44, 20), 7, 2, -1)
    return truth


def drawn_mask(index: int) -> np.ndarray:
    """The truth moved the further the higher the index, so that scores fall with it."""
    truth = drawn_truth(index)
    return np.roll(np.where(truth == 255, 0, truth), index, axis=0)


def scores(matrix: np.ndarray, **more: object) -> dict[str, object]:
    found = confusion_scores(matrix)
    per_class = {
        name: {key: float(found[key][i]) for key in ("iou", "precision", "recall")}
        for i, name in enumerate(NAMES)
    }
    return {
        "miou": float(found["miou"]),
        "iou": {name: values["iou"] for name, values in per_class.items()},
        "precision": float(found["mean_precision"]),
        "recall": float(found["mean_recall"]),
        "pixel_accuracy": float(found["pixel_accuracy"]),
        "per_class": per_class,
        "images": len(IDS),
        "protocol": "strict",
        "split": "train",
        **more,
    }


def recipe() -> Any:
    config: Any = ConfigDict({"name": "seam_drawn", "seed": 3})
    config.data = {"builder": "shapes"}
    backbone = {"name": "tiny", "width": 8}
    config.train = {
        "type": "train",
        "split": "train",
        "batch_size": 4,
        "epochs": 2,
        "method": {"name": "seam", "backbone": backbone},
        "augment": {"crop": 32},
        "optimizer": {"lr": 0.1},
    }
    config.cam = {
        "type": "infer_cam",
        "needs": {"checkpoint": "train"},
        "split": "train",
        "scales": (0.5, 1.0),
        "flip": True,
    }
    config.eval_cam = {
        "type": "evaluate",
        "needs": {"pred": "cam"},
        "split": "train",
        "threshold": "oracle",
    }
    config.masks = {
        "type": "pseudo_labels",
        "needs": {"cams": "cam", "train": "eval_cam"},
        "split": "train",
        "threshold": "from:train",
    }
    config.eval_masks = {"type": "evaluate", "needs": {"pred": "masks"}, "split": "train"}
    config.report = {"type": "report"}
    config.stages = ("train", "cam", "eval_cam", "masks", "eval_masks", "report")
    return config


def make_run(workdir: Path) -> Any:
    config = recipe()
    for name in config.stages:
        (workdir / name).mkdir(parents=True)
        write_json(workdir / name / "config.json", config[name].to_dict())
    for name in ("train", "cam", "masks"):
        counts = {"parameters_of": {"backbone": {"trained": 1200, "frozen": 0}}}
        trained = counts if name.startswith("train") else {}
        write_json(workdir / name / "metrics.json", {"images": len(IDS), **trained})
    write_json(workdir / "train" / "_DONE.json", {"seconds": 187.2, "device": "1 x cpu"})
    with MetricWriter(workdir / "train") as writer:
        for step in range(1, 41):
            terms = {"loss/cls": 2.0 / step, "loss/er": 0.01 / step}
            loss = float("nan") if step == 7 else sum(terms.values())
            writer.scalars(
                step, {"loss": loss, **terms, "lr": 0.1 / step, "images_per_second": 50.0}
            )
    total, per_image = np.zeros((3, 3), np.int64), {}
    for index, name in enumerate(IDS):
        truth, mask = drawn_truth(index), drawn_mask(index)
        matrix = confusion_matrix(mask, truth, len(CLASSES))
        total += matrix
        per_image[name] = 0.9 - 0.1 * index
        safe = name.replace("/", "_")
        keys = np.array(sorted(set(np.unique(truth)) - {0, 255}), np.int32) - 1
        maps = [cv2.GaussianBlur((truth == k + 1).astype(np.float32), (0, 0), 3) for k in keys]
        write_cams(workdir / "cam" / "cams" / f"{safe}.npz", keys, np.stack(maps))
        (workdir / "masks" / "masks").mkdir(exist_ok=True)
        (workdir / "masks" / "masks" / f"{safe}.png").write_bytes(encode_mask(mask))
    curve = [0.5 - (t - 0.2) ** 2 for t in THRESHOLDS]
    maps_scores = scores(
        total,
        threshold=0.2,
        threshold_choice="oracle",
        thresholds=THRESHOLDS,
        miou_curve=curve,
        precision_curve=[0.4 + t for t in THRESHOLDS],
        recall_curve=[0.9 - t for t in THRESHOLDS],
        best_threshold=0.2,
    )
    write_json(workdir / "eval_cam" / "metrics.json", maps_scores)
    write_json(workdir / "eval_masks" / "metrics.json", scores(total))
    write_json(workdir / "masks" / "metrics.json", {"threshold": 0.2, "threshold_choice": "oracle"})
    for name in ("eval_cam", "eval_masks"):
        write_json(workdir / name / "per_image.json", per_image)
    return report_context(config, workdir)


class Page(HTMLParser):
    """What a browser would find: tags with attributes, text, unclosed elements."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "input", "meta", "br", "hr", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def named(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        found = [attributes for name, attributes in self.tags if name == tag]
        return [a for a in found if all(a.get(k.rstrip("_")) == v for k, v in wanted.items())]
