"""Spreads class activation maps by a random walk of AffinityNet's or IRNet's kind.

Ahn & Kwak, CVPR 2018; Ahn et al., CVPR 2019.

``walk/<id>.npz`` are the scores, see `wsss_jax.data.formats.walk_files`, ``masks/<id>.png`` the
results, ``confidence/<id>.png`` how sure they are.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from wsss_jax.data.confidence import CONFIDENCE_FOLDER
from wsss_jax.data.formats.cam_files import all_cams
from wsss_jax.data.formats.walk_files import write_walk
from wsss_jax.data.source import Source
from wsss_jax.data.threads import thread_pool
from wsss_jax.errors import UserError
from wsss_jax.host.dense_crf import CrfSettings, crf_settings
from wsss_jax.host.host_memory import keep_freed_memory
from wsss_jax.host.walk_masks import MaskTask, write_mask
from wsss_jax.host.workers import in_processes, worker_count
from wsss_jax.inference.multi_scale import MultiScale, chunks, load_network
from wsss_jax.inference.random_walk import Prepared, WalkSettings, prepare, walk_images
from wsss_jax.stages.base import Context, Needs, expect
from wsss_jax.stages.references import check_alpha, resolved_alpha

MAKES = ("masks/", "confidence/", "walk/")

_ALPHA = 16.0
_NETWORKS = {"affinity": "affinity", "irnet": "boundary"}


def check(config: ConfigDict, needs: Needs) -> None:
    """Refuses what cannot work; see `wsss_jax.stages.base`."""
    expect(needs, "cams", "cams/")
    expect(needs, "checkpoint", "weights.npz")
    values: dict[str, Any] = config.to_dict()
    settings, _ = _settings(values, check_alpha(values.get("alpha", _ALPHA), needs))
    method = needs["checkpoint"].settings.get("method", {}).get("name")
    if _NETWORKS.get(method, settings.network) != settings.network:
        raise UserError(
            f"expected network={_NETWORKS[method]!r} for {needs['checkpoint'].stage}, which trains"
            f" {method}, found {settings.network!r}: change it, or needs.checkpoint"
        )


def _settings(values: dict[str, Any], power: float) -> tuple[WalkSettings, CrfSettings | None]:
    settings = WalkSettings(
        alpha=power,
        beta=float(values.get("beta", 8)),
        steps=int(values.get("steps", 256)),
        network=str(values.get("network", "affinity")),
        threshold=float(values.get("threshold", 0.25)),
    )
    one = CrfSettings(iterations=1)  # one update unless told otherwise, as PSA does
    return settings, crf_settings(values, one) if values.get("crf", False) else None


def run(ctx: Context, config: ConfigDict, inputs: dict[str, Path]) -> dict[str, Any]:
    """Runs the stage; see `wsss_jax.stages`.

    Takes the network of the need ``checkpoint`` and the maps of the need ``cams``; a mask can only
    have classes its file of maps has. Finished images are kept. Processes share the images.

    Settings: ``split``; ``network``, ``alpha``, ``beta``, ``steps`` and ``threshold`` (see
    `WalkSettings`; ``alpha`` may be ``from:NEED``, see
    `wsss_jax.stages.references.resolved_alpha`); ``max_pixels``, ``max_buckets``
    and ``batch_pixels`` (see `MultiScale`);
    ``crf``: a final dense CRF (False), with ``gaussian`` (sxy, weight), ``bilateral`` (sxy, srgb,
    weight) and ``iterations`` (1), by default of PSA's widths, ``fast`` (half resolution) and
    ``workers`` (processes for it; 0: one for each core).

    Returns:
      ``images``, ``walked`` (how many this run did), ``images_per_second`` and the settings.

    Raises:
      UserError: a CAM file is missing, damaged or of another size than its image, or the settings
        make no sense.
    """
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    values: dict[str, Any] = config.to_dict()
    settings, crf = _settings(values, resolved_alpha(values.get("alpha", _ALPHA), inputs))
    source = ctx.source(values["split"])
    folder = inputs["cams"] / "cams"
    cams = all_cams(folder, source.ids)
    start = time.monotonic()
    walked = _walk_all(ctx, values, settings, source, cams, inputs["checkpoint"])
    _write_masks(ctx, values, source, crf)
    seconds = time.monotonic() - start
    walks_too = settings.network == "affinity"
    background = {"alpha": settings.alpha} if walks_too else {"threshold": settings.threshold}
    return {
        "images": len(source),
        "walked": walked,
        "images_per_second": walked / seconds if walked else None,
        "network": settings.network,
        **background,
        "beta": settings.beta,
        "steps": settings.steps,
        "crf": crf is not None,
    }


def _walk_all(
    ctx: Context,
    values: dict[str, Any],
    settings: WalkSettings,
    source: Source,
    cams: dict[str, Path],
    checkpoint: Path,
) -> int:
    """Writes ``walk/<id>.npz`` of this process's images; returns how many were missing."""
    folder = ctx.stage_dir / "walk"
    folder.mkdir(exist_ok=True)
    fields = {k: values[k] for k in ("max_pixels", "max_buckets", "batch_pixels") if k in values}
    how = MultiScale(scales=(1.0,), flip=False, **fields)
    sizes = source.sizes
    buckets = how.buckets(set(sizes))
    network = load_network(checkpoint, len(source.classes), settings.network)
    power = settings.alpha if settings.network == "affinity" else None
    mine = range(ctx.process_index, len(source), ctx.process_count)
    walked = 0

    def load(index: int) -> Prepared:
        path = cams[source.ids[index]]
        return prepare(source, index, path, how, power, network.stride)

    with ctx.progress(len(mine), f"random walk of {values['split']}") as bar:
        for chunk in chunks(mine, sizes):
            missing = {i for i in chunk if not (folder / f"{source.ids[i]}.npz").exists()}
            if missing:
                with ThreadPoolExecutor(2) as pool:
                    images = list(pool.map(load, chunk))
                for index, walk in walk_images(images, network, how, buckets, settings):
                    if index in missing:
                        write_walk(folder / f"{source.ids[index]}.npz", walk)
                walked += len(missing)
            bar.update(len(chunk))
    return walked


def _write_masks(
    ctx: Context, values: dict[str, Any], source: Source, crf: CrfSettings | None
) -> None:
    """Writes masks and confidences from the walks: with a CRF in processes, else in threads."""
    folder, sure = ctx.stage_dir / "masks", ctx.stage_dir / CONFIDENCE_FOLDER
    folder.mkdir(exist_ok=True)
    sure.mkdir(exist_ok=True)
    mine = range(ctx.process_index, len(source), ctx.process_count)
    left = [
        i for i in mine if not all((f / f"{source.ids[i]}.png").exists() for f in (folder, sure))
    ]

    def tasks() -> Iterator[MaskTask]:
        for index in left:
            name = source.ids[index]
            yield MaskTask(
                image_id=name,
                walk=ctx.stage_dir / "walk" / f"{name}.npz",
                target=folder / f"{name}.png",
                confidence=sure / f"{name}.png",
                num_classes=len(source.classes),
                image=source[index]["image"] if crf else b"",
                crf=crf,
                fast=bool(values.get("fast", False)),
            )

    done = len(mine) - len(left)
    with ctx.progress(len(mine), f"masks of {values['split']}", initial=done) as bar:
        if crf is not None:
            workers = worker_count(int(values.get("workers", 0)), len(left))
            for _ in in_processes(write_mask, tasks(), workers):
                bar.update()
            return
        with thread_pool() as pool:
            for _ in pool.map(write_mask, tasks()):
                bar.update()
