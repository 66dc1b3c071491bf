"""Masks of a segmentation network, multi-scale and flipped: ``masks/<id>.png``."""

from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from wsss_jax.host.host_memory import keep_freed_memory
from wsss_jax.inference.segmentation import mask_settings, write_network_masks
from wsss_jax.stages.base import Context, Needs, expect

MAKES = ("masks/",)


def check(config: ConfigDict, needs: Needs) -> None:
    """Refuses what cannot work; see `wsss_jax.stages.base`."""
    expect(needs, "checkpoint", "weights.npz")
    mask_settings(config.to_dict())


def run(ctx: Context, config: ConfigDict, inputs: dict[str, Path]) -> dict[str, Any]:
    """Runs the stage; see `wsss_jax.stages`.

    Takes the network of the need ``checkpoint``; the class with the highest mean logit over scales
    and flips wins. Settings: ``split``; the fields of `MultiScale`; ``crf``: a dense CRF over all
    classes on the softmax of the mean logits (False), with ``gaussian`` (sxy, weight),
    ``bilateral`` (sxy, srgb, weight) and ``iterations``, by default those of PSA's and SEAM's
    network, and ``workers`` (processes for it; 0: one for each core). Finished masks are kept.
    Processes share the images.
    """
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    values: dict[str, Any] = config.to_dict()
    settings = mask_settings(values)
    source = ctx.source(values["split"])
    folder = ctx.stage_dir / "masks"
    folder.mkdir(exist_ok=True)
    mine = range(ctx.process_index, len(source), ctx.process_count)
    done = sum((folder / f"{source.ids[i]}.png").exists() for i in mine)
    with ctx.progress(len(mine), f"masks of {values['split']}", initial=done) as bar:
        write_network_masks(source, mine, inputs["checkpoint"], folder, settings, bar)
    return {
        "images": len(source),
        "scales": list(settings.how.scales),
        "flip": settings.how.flip,
        "crf": settings.crf is not None,
    }
