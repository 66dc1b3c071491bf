"""Masks of a segmentation network, multi-scale and flipped: ``masks/<id>.png``."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax

from wsss_jax.host.host_memory import keep_freed_memory
from wsss_jax.inference.segmentation import MaskSettings, write_network_masks
from wsss_jax.stages.base import Context, Stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(MaskSettings, Stage):
    """Makes a segmentation network's masks, multi-scale and flipped: ``masks/<id>.png``.

    Takes the network of the need ``checkpoint``; the class with the highest mean logit over scales
    and flips wins, or the most probable one after a dense CRF. Finished masks are kept. Processes
    share the images.

    Attributes:
      split: images to make masks of.
    """

    inputs: ClassVar[Mapping[str, tuple[str, ...]]] = {"checkpoint": ("weights.npz",)}
    outputs: ClassVar[tuple[str, ...]] = ("masks/",)
    no_effect: ClassVar[frozenset[str]] = frozenset({"workers"})

    split: str

    def run(self, ctx: Context, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Runs the stage; see `Stage`.

        Returns:
          ``images`` and settings.

        Raises:
          UserError: the network is missing or is no segmentation network, or an image is damaged.
        """
        if jax.default_backend() == "cpu":
            keep_freed_memory()
        source = ctx.source(self.split)
        folder = ctx.stage_dir / "masks"
        folder.mkdir(exist_ok=True)
        mine = range(ctx.process_index, len(source), ctx.process_count)
        done = sum((folder / f"{source.ids[i]}.png").exists() for i in mine)
        with ctx.progress(len(mine), f"masks of {self.split}", initial=done) as bar:
            write_network_masks(source, mine, inputs["checkpoint"], folder, self, bar)
        return {
            "images": len(source),
            "scales": list(self.scales),
            "flip": self.flip,
            "crf": self.crf,
        }
