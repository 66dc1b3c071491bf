"""Masks of a segmentation network, multi-scale and flipped: ``masks/<id>.png``."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from wsss_jax.context import Context
from wsss_jax.data.images import encode_mask
from wsss_jax.files import atomic_write
from wsss_jax.host_memory import keep_freed_memory
from wsss_jax.inference import MultiScale, chunks, image_sizes, load_network, summed_maps


def run(ctx: Context, config: ConfigDict, inputs: dict[str, Path]) -> dict[str, Any]:
    """Runs the stage; see `wsss_jax.stages`.

    Takes the network of the need ``checkpoint``; the class with the highest mean logit over scales
    and flips wins. Settings: ``split`` and the fields of `MultiScale`.
    """
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    settings: dict[str, Any] = config.to_dict()
    source = ctx.source(settings["split"])
    folder = ctx.stage_dir / "masks"
    folder.mkdir(exist_ok=True)
    how = MultiScale(**{k: v for k, v in settings.items() if k in MultiScale.__dataclass_fields__})
    sizes = image_sizes(source)
    buckets = how.buckets(set(sizes))
    network = load_network(inputs["checkpoint"], len(source.classes), "logits")
    everything = np.arange(len(source.classes) + 1)
    mine = range(ctx.process_index, len(source), ctx.process_count)
    with ctx.progress(len(mine), f"masks of {settings['split']}") as bar:
        for chunk in chunks(mine, sizes):
            missing = {i for i in chunk if not (folder / f"{source.ids[i]}.png").exists()}
            if missing:
                maps = summed_maps(source, chunk, lambda _: everything, network, how, buckets)
                for index, _, total in maps:
                    if index in missing:
                        with atomic_write(folder / f"{source.ids[index]}.png") as file:
                            file.write(encode_mask(total.argmax(0).astype(np.uint8)))
            bar.update(len(chunk))
    return {"images": len(source), "scales": list(how.scales), "flip": how.flip}
