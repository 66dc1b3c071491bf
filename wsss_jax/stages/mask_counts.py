"""Counts what the masks of a stage show, and tells of masks that show nothing."""

from typing import Any

import numpy as np
from jaxtyping import Int

from wsss_jax.data.masks import IGNORE, decode_mask, value_counts
from wsss_jax.data.source import Source
from wsss_jax.data.threads import ahead, thread_count, thread_pool
from wsss_jax.errors import first
from wsss_jax.files import read_bytes
from wsss_jax.stages.base import Context
from wsss_jax.stages.per_image import Done

_PLAIN = 0.1
_SHOWN = 5


class MaskCounts:
    """The values of this process's masks of a split.

    Args:
      source: the images of the split.
    """

    def __init__(self, source: Source):
        self._source = source
        self._pixels, self._images = np.zeros((2, IGNORE + 1), np.int64)
        self._plain = np.zeros(len(source), bool)
        self._masks = 0

    def add(self, position: int, pixels: Int[np.ndarray, " values"]) -> None:
        """Adds the mask of an image, whose pixels of each value are counted."""
        self._pixels += pixels
        self._images += pixels > 0
        self._plain[position] = np.count_nonzero(pixels) == 1
        self._masks += 1

    def add_kept(self, ctx: Context, done: Done) -> None:
        """Adds the masks that were finished before, ``masks/<id>.png`` in the folder of the stage.

        Raises:
          UserError: a mask is damaged.
        """
        source = self._source

        def read(position: int) -> tuple[int, np.ndarray]:
            path = ctx.stage_dir / "masks" / f"{source.ids[position]}.png"
            mask = decode_mask(read_bytes(path), str(path), len(source.classes))
            return position, value_counts(mask)

        with thread_pool() as pool:
            positions = ([int(position)] for position in done.kept)
            for (found,) in ahead(pool, read, positions, 2 * thread_count()):
                self.add(*found)

    @property
    def background_and_ignore(self) -> tuple[float, float]:
        """The shares of the pixels of the background, and of those that are ignored."""
        shares = self._shares
        return float(shares[0]), float(shares[IGNORE])

    @property
    def _shares(self) -> np.ndarray:
        return self._pixels / max(self._pixels.sum(), 1)

    def metrics(self, ctx: Context, advice: str, plausible: float = _PLAIN) -> dict[str, Any]:
        """Returns ``class_shares``, ``class_images``, and ``warnings`` if there are any.

        They have the share of all pixels, and the number of masks, of each class, of the
        ``background`` and of ``ignore``. A warning names masks with one value only.

        Args:
          ctx: the context of the run.
          advice: what may be wrong with many such masks.
          plausible: the share of masks of images with a class that may have one value only.
        """
        names = {index + 1: name for index, name in enumerate(self._source.classes)}
        names |= {0: "background", IGNORE: "ignore"}
        shares = self._shares
        found: dict[str, Any] = {
            "class_shares": {name: float(shares[index]) for index, name in names.items()},
            "class_images": {name: int(self._images[index]) for index, name in names.items()},
        }
        plain = np.flatnonzero(self._plain)
        if len(plain) <= plausible * self._masks:
            return found
        # The mask of an image without a class should have one value.
        wrong = [p for p in plain.tolist() if self._source[p]["label"].any()]
        if len(wrong) <= plausible * self._masks:
            return found
        largest = max(names, key=lambda index: self._pixels[index])
        some = first([self._source.ids[p] for p in wrong[: _SHOWN + 1]], _SHOWN)
        warning = (
            f"{len(wrong)} of {self._masks} masks have one value only although their images have a"
            f" class ({some}), and {names[largest]} covers {100 * shares[largest]:.1f} % of all"
            f" pixels: look at the masks; {advice}"
        )
        return found | {"warnings": [ctx.warn(warning)]}
