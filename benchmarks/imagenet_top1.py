"""How often ImageNet classifiers take photographs of dogs for dogs, and of cats for cats.

    .venv/bin/python benchmarks/imagenet_top1.py --root VOCdevkit/VOC2012 --labels cls_labels.npy \
        --weights efficientnet_lite0 efficientnet_lite1 efficientnet_lite2 mobilenet_v2=FILE.npz

Takes the images of a list that show dogs only, and cats only, and counts those whose best class is
one of ImageNet's 118 dogs (151 to 268) or 5 cats (281 to 285). The short side of an image is scaled
to the resolution of the network, whose center is cut out. Weights are names of the catalogue, or
BACKBONE=FILE. Prints a table in Markdown.
"""

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import command, tables
from wsss_jax.data.augment import resize_image
from wsss_jax.data.class_names import VOC_CLASSES
from wsss_jax.data.images import decode_image
from wsss_jax.data.labels import read_label_file
from wsss_jax.errors import UserError
from wsss_jax.models.base import Backbone
from wsss_jax.models.efficientnet_lite import EfficientNetLite
from wsss_jax.settings import read
from wsss_jax.weights import catalogue
from wsss_jax.weights.imagenet import load_classifier
from wsss_jax.weights.imagenet_names import GROUPS

KINDS = {kind: GROUPS[kind] for kind in ("dog", "cat")}
BATCH = 16


def center_crop(image: np.ndarray, side: int) -> np.ndarray:
    """Scales the short side to `side` and cuts the center out."""
    scale = side / min(image.shape[:2])
    height, width = (max(round(n * scale), side) for n in image.shape[:2])
    top, left = (height - side) // 2, (width - side) // 2
    return resize_image(image, height, width)[top : top + side, left : left + side]


def only(root: Path, split: str, labels: Path, name: str) -> list[Path]:
    """The photographs of a list that show `name` and no other class, in its order."""
    known = read_label_file(labels, VOC_CLASSES)
    wanted = np.arange(len(VOC_CLASSES)) == VOC_CLASSES.index(name)
    ids = (root / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()
    chosen = [i for i in ids if i in known and np.array_equal(known[i], wanted)]
    return [root / "JPEGImages" / f"{i}.jpg" for i in chosen]


def recognized(weights: str, paths: dict[str, list[Path]]) -> dict[str, int]:
    """How many photographs of each kind a classifier takes for one of this kind."""
    backbone, path = opened(weights)
    side = backbone.resolution if isinstance(backbone, EfficientNetLite) else 224
    classifier = load_classifier(path, backbone)

    @jax.jit
    def best(variables: Any, images: jax.Array) -> jax.Array:
        valid = jax.numpy.ones(images.shape[:3], bool)
        maps = classifier.method.predict(variables, images, valid)["cam"]
        return (maps.mean((1, 2)) + classifier.bias).argmax(-1)

    found = {}
    for name, photographs in paths.items():
        right = 0
        for first in range(0, len(photographs), BATCH):
            part = photographs[first : first + BATCH]
            crops = [center_crop(decode_image(p.read_bytes(), p.name), side) for p in part]
            crops += [crops[-1]] * (BATCH - len(crops))  # The shape of all batches is the same.
            classes = np.asarray(best(classifier.variables, np.stack(crops)))[: len(part)]
            right += int(np.isin(classes, KINDS[name]).sum())
        found[name] = right
    return found


def opened(weights: str) -> tuple[Backbone, Path]:
    """The backbone at the output stride of its training, and the file."""
    name, _, file = weights.partition("=")
    published = catalogue.find(name)
    if file:
        settings: dict[str, Any] = {"name": name}
    elif published is not None:
        settings = dict(published.backbone)
    else:
        raise UserError(f"expected a name of the catalogue or BACKBONE=FILE, found {weights!r}")
    backbone = read(Backbone, settings | {"output_stride": 32})
    return backbone, Path(file) if file else catalogue.resolve(name)


def main() -> int:
    parser = command.parser(__doc__)
    parser.add_argument("--root", type=Path, required=True, help="the folder VOC2012")
    parser.add_argument("--labels", type=Path, required=True, help="image-level labels")
    parser.add_argument("--lists", nargs="+", default=["train_aug", "val"], help="the lists")
    parser.add_argument("--images", type=int, default=0, help="the first images; 0 for all")
    parser.add_argument("--weights", nargs="+", required=True, help="names, or BACKBONE=FILE")
    options = parser.parse_args()
    print(tables.machine(jax.local_device_count(), "jax"), "\n")
    print(tables.head(("list", "weights", "dogs taken for dogs", "cats taken for cats", "both")))
    try:
        for split in options.lists:
            paths = {k: only(options.root, split, options.labels, k) for k in KINDS}
            if options.images:
                paths = {kind: found[: options.images] for kind, found in paths.items()}
            for weights in options.weights:
                found = recognized(weights, paths)
                counts = [(found[kind], len(paths[kind])) for kind in KINDS]
                counts.append((sum(a for a, _ in counts), sum(b for _, b in counts)))
                shown = [f"{a} of {b} ({100 * a / max(b, 1):.1f} %)" for a, b in counts]
                print(tables.row([split, f"`{weights.partition('=')[0]}`", *shown]), flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
