"""Holds a part of train_aug out, so that choices are made without looking at val.

    .venv/bin/python benchmarks/hold_out.py --root VOCdevkit/VOC2012 --out runs/held_out

Makes a folder in VOC's layout with links to the photographs and masks of `root`, and lists of its
own. ``val`` has the images of train_aug that are held out, chosen by a hash of their id and the
seed among those that are not in train. ``train_aug`` and ``train`` have the others. Recipes run on
it with ``--config.data.root=runs/held_out``.
"""

import hashlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import command
from wsss_jax.errors import UserError

FOLDERS = ("JPEGImages", "SegmentationClass", "SegmentationClassAug", "Annotations")
LISTS = Path("ImageSets") / "Segmentation"


def chosen(ids: list[str], images: int, seed: int) -> set[str]:
    """The ids with the lowest hashes, which do not depend on the order of `ids`."""
    return set(sorted(ids, key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())[:images])


def hold_out(root: Path, out: Path, images: int, seed: int) -> dict[str, int]:
    """Makes the folder `out`; returns the number of images of each of its lists.

    Raises:
      UserError: `out` exists, or there are too few images.
    """
    lists = {s: (root / LISTS / f"{s}.txt").read_text().split() for s in ("train", "train_aug")}
    others = [i for i in lists["train_aug"] if i not in set(lists["train"])]
    if not 0 < images < len(others):
        raise UserError(
            f"expected 1 to {len(others) - 1} images of train_aug outside of train, found"
            f" {images}: change --images"
        )
    if out.exists():
        raise UserError(f"expected a new folder as --out, found {out}: name another one")
    held = chosen(others, images, seed)
    lists["train_aug"] = [i for i in lists["train_aug"] if i not in held]
    lists["val"] = [i for i in others if i in held]
    (out / LISTS).mkdir(parents=True)
    for name in FOLDERS:
        if (root / name).is_dir():
            (out / name).symlink_to((root / name).resolve())
    for split, ids in lists.items():
        (out / LISTS / f"{split}.txt").write_text("\n".join([*ids, ""]))
    return {split: len(ids) for split, ids in lists.items()}


def main() -> int:
    parser = command.parser(__doc__)
    parser.add_argument("--root", type=Path, required=True, help="the folder VOC2012")
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    parser.add_argument("--images", type=int, default=300, help="how many images are held out")
    parser.add_argument("--seed", type=int, default=0, help="chooses them")
    options = parser.parse_args()
    try:
        counts = hold_out(options.root, options.out, options.images, options.seed)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(", ".join(f"{split}: {count} images" for split, count in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
