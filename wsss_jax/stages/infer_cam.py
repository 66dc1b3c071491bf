"""Multi-scale, flipped activation maps of every image: ``cams/<id>.npz``."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import numpy as np
from jaxtyping import Float

from wsss_jax.data.formats.cam_files import write_cams
from wsss_jax.host.host_memory import keep_freed_memory
from wsss_jax.inference.multi_scale import (
    MultiScale,
    chunks,
    load_network,
    summed_maps,
)
from wsss_jax.stages.base import Context, Stage

_EPSILON = 1e-5  # of the published programs


@dataclasses.dataclass(frozen=True, kw_only=True)
class InferCam(MultiScale, Stage):
    """Makes multi-scale, flipped activation maps of every image: ``cams/<id>.npz``.

    Takes the network of the need ``checkpoint``. Only the classes of an image's label get a map.
    Finished images are kept. Processes share the images.

    Attributes:
      split: images to make maps of.
      output: which of the method's predictions the maps are.
      normalize: how the summed maps come to lie between 0 and 1, per class: ``min_max``:
        (v − min) / (max − min) (SEAM); ``max``: v / max (PSA, SSENet).
    """

    inputs: ClassVar[Mapping[str, tuple[str, ...]]] = {"checkpoint": ("weights.npz",)}
    outputs: ClassVar[tuple[str, ...]] = ("cams/",)

    split: str
    output: str = "cam"
    normalize: Literal["min_max", "max"] = "min_max"

    def run(self, ctx: Context, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Runs the stage; see `Stage`.

        Returns:
          ``images``; ``inferred``, how many this run did; ``buckets``, the padded shapes; settings.

        Raises:
          UserError: the network is missing, or does not predict `output`.
        """
        if jax.default_backend() == "cpu":
            keep_freed_memory()
        source = ctx.source(self.split)
        folder = ctx.stage_dir / "cams"
        folder.mkdir(exist_ok=True)
        sizes = source.sizes
        buckets = self.buckets(set(sizes))
        network = load_network(inputs["checkpoint"], len(source.classes), self.output)
        mine = range(ctx.process_index, len(source), ctx.process_count)
        inferred = 0
        with ctx.progress(len(mine), f"maps of {self.split}") as bar:
            for chunk in chunks(mine, sizes):
                missing = {i for i in chunk if not (folder / f"{source.ids[i]}.npz").exists()}
                if missing:
                    maps = summed_maps(
                        source, chunk, lambda y: np.flatnonzero(y), network, self, buckets
                    )
                    for index, keys, total in maps:
                        if index in missing:
                            path = folder / f"{source.ids[index]}.npz"
                            write_cams(path, keys, normalized(total, self.normalize))
                    inferred += len(missing)
                bar.update(len(chunk))
        return {
            "images": len(source),
            "inferred": inferred,
            "scales": list(self.scales),
            "flip": self.flip,
            "output": self.output,
            "buckets": [list(b) for b in buckets],
        }


def normalized(total: Float[np.ndarray, "k h w"], kind: str) -> Float[np.ndarray, "k h w"]:
    """Summed maps between 0 and 1; a class without response stays 0.

    ``max``: v/(max + ε). ``min_max``: (v − min − ε)/(max − min + ε), zero below min + ε.
    """
    cam = np.maximum(total, 0)
    if not len(cam):
        return cam
    high = cam.max((1, 2), keepdims=True)
    if kind == "max":
        return cam / (high + _EPSILON)
    low = cam.min((1, 2), keepdims=True)
    return np.maximum(cam - low - _EPSILON, 0) / (high - low + _EPSILON)
