"""The padded pixels of multi-scale inference, and the bytes that cross to the host.

    .venv/bin/python benchmarks/padding.py --root VOCdevkit/VOC2012 --lists train_aug val

Plans inference as the stages of the recipes do that run a network over scales, and prints a table
in Markdown: the padded shapes, which are as many programs, the padded pixels per pixel of the
scaled images, and what crosses to the host for an image if maps are summed there or on the device.
Rows of batches that stay empty count. Nothing is run.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import command, tables, training
from wsss_jax.inference.multi_scale import MultiScale
from wsss_jax.methods.base import Method
from wsss_jax.ops.buckets import Plan
from wsss_jax.pipeline.config import load_config
from wsss_jax.stages.base import Stage
from wsss_jax.stages.infer_cam import InferCam

COLUMNS = ("recipe", "stages", "scales", "strides", "images", "shapes", "padding")
COLUMNS += ("padding, 8 devices", "KiB to the host per image, summed there", "summed on the device")
CLASSES = 2
"""Two maps cross from the device for an image of one class or two, as most of VOC's are."""


def planned(recipe: str, sizes: list[tuple[int, int]]) -> Iterator[str]:
    """The rows of a recipe; stages that plan alike share one."""
    config: Any = load_config(recipe)
    rows: dict[tuple[Any, ...], list[str]] = {}
    for name in config.stages:
        stage = Stage.from_config(config[name], name)
        if not isinstance(stage, MultiScale):
            continue
        section = config[stage.needs["checkpoint"]].method
        method = Method.from_config(section, name, num_classes=training.NUM_CLASSES)
        one, eight = (stage.plan(sizes, method.backbone, devices) for devices in (1, 8))
        shapes = len({size for bucket in one.buckets for size in bucket})
        percent = [f"{100 * plan.padding():.1f} %" for plan in (one, eight)]
        scales = ", ".join(map(str, stage.scales))
        strides = max(method.backbone.tap_strides.values())
        stride = method.stride("cam" if isinstance(stage, InferCam) else "logits")
        bytes_ = crossing(stage, one, stride, sizes)
        cells = (scales, strides, len(sizes), shapes, *percent, *bytes_)
        rows.setdefault(cells, []).append(name)
    for cells, names in rows.items():
        yield tables.row([f"`{recipe}`", ", ".join(names), *cells])


def crossing(
    stage: MultiScale, plan: Plan, stride: int, sizes: list[tuple[int, int]]
) -> tuple[str, str]:
    """KiB per image that cross to the host with both values of ``sum_on``."""
    maps = isinstance(stage, InferCam)
    low = summed = 0
    for bucket, members in plan.members().items():
        rows = sum(batch.rows for batch in plan.batches(members))
        pixels = sum(-(-height // stride) * -(-width // stride) for height, width in bucket)
        low += 4 * rows * stage.copies * pixels * (training.NUM_CLASSES + (not maps))
        canvas = max(sizes[one][0] for one in members) * max(sizes[one][1] for one in members)
        if maps:
            each = 2 * CLASSES
        else:
            each = 2 * (training.NUM_CLASSES + 1) if getattr(stage, "crf", False) else 1
        summed += each * rows * canvas
    return f"{low / len(sizes) / 1024:.0f}", f"{summed / len(sizes) / 1024:.0f}"


def main() -> None:
    parser = command.parser(__doc__)
    add = parser.add_argument
    add("--root", required=True, help="a VOC2012 folder")
    add("--lists", nargs="+", default=["train_aug", "val"], help="in ImageSets/Segmentation")
    recipes = ["cam_voc_light", "cam_irn_voc", "seam_voc"]
    add("--recipes", nargs="+", default=recipes, help="recipes that run networks over scales")
    options = parser.parse_args()
    root, sizes = Path(options.root), []
    for name in options.lists:
        for line in (root / "ImageSets/Segmentation" / f"{name}.txt").read_text().split():
            with Image.open(root / "JPEGImages" / f"{line}.jpg") as image:
                sizes.append((image.height, image.width))
    print(tables.head(COLUMNS))
    for recipe in options.recipes:
        for row in planned(recipe, sizes):
            print(row, flush=True)


if __name__ == "__main__":
    main()
