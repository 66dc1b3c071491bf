"""Spreads class activation maps by a random walk of AffinityNet's or IRNet's kind.

Ahn & Kwak, CVPR 2018; Ahn et al., CVPR 2019.

``walk/<id>.npz`` are the scores, see `wsss_jax.data.formats.walk_files`, ``masks/<id>.png`` the
results, ``confidence/<id>.png`` how sure they are.
"""

import dataclasses
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import jax

from wsss_jax.data.confidence import CONFIDENCE_FOLDER
from wsss_jax.data.formats.cam_files import all_cams
from wsss_jax.data.formats.walk_files import write_walk
from wsss_jax.data.source import Source
from wsss_jax.data.threads import thread_pool
from wsss_jax.errors import UserError
from wsss_jax.host.dense_crf import CrfSettings
from wsss_jax.host.host_memory import keep_freed_memory
from wsss_jax.host.walk_masks import MaskTask, write_mask
from wsss_jax.host.workers import in_processes, worker_count
from wsss_jax.inference.multi_scale import (
    MultiScale,
    PaddedShapes,
    chunks,
    load_network,
)
from wsss_jax.inference.random_walk import Prepared, WalkSettings, prepare, walk_images
from wsss_jax.stages.base import Context, Needs, Stage
from wsss_jax.stages.references import check_alpha, resolved_alpha

_NETWORKS = {"affinity": "affinity", "irnet": "boundary"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomWalk(WalkSettings, PaddedShapes, CrfSettings, Stage):
    """Spreads class activation maps by a random walk of AffinityNet's or IRNet's kind.

    Takes the network of the need ``checkpoint`` and the maps of the need ``cams``; a mask can only
    have classes its file of maps has. Finished images are kept. Processes share the images.

    Attributes:
      split: images to walk on.
      alpha: power of the background (1 − max)^alpha that walks too, with ``affinity`` alone (PSA:
        16; SEAM tunes it). A number, or ``from:NEED``: the α that meets the threshold of that
        stage.
      crf: whether a final dense CRF follows.
      iterations: updates of the CRF's mean field (PSA: 1).
      workers: processes for the CRF; 0: one for each core.
    """

    inputs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "cams": ("cams/",),
        "checkpoint": ("weights.npz",),
    }
    outputs: ClassVar[tuple[str, ...]] = ("masks/", "confidence/", "walk/")
    no_effect: ClassVar[frozenset[str]] = frozenset({"workers"})

    split: str
    alpha: float | str = 16.0
    crf: bool = False
    iterations: int = 1
    workers: int = 0

    def check(self, needs: Needs) -> None:
        """Refuses what cannot work; see `Stage`."""
        super().check(needs)
        check_alpha(self.alpha, "alpha", needs)
        trained = needs["checkpoint"]
        method = str(getattr(trained.stage, "method", {}).get("name", ""))
        expected = _NETWORKS.get(method, self.network)
        if expected != self.network:
            raise UserError(
                f"expected network={expected!r} for {trained.name}, which trains {method},"
                f" found {self.network!r}: change it, or needs.checkpoint"
            )

    def run(self, ctx: Context, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Runs the stage; see `Stage`.

        Returns:
          ``images``, ``walked`` (how many this run did), ``images_per_second`` and the settings.

        Raises:
          UserError: a CAM file is missing, damaged or of another size than its image.
        """
        if jax.default_backend() == "cpu":
            keep_freed_memory()
        alpha = resolved_alpha(self.alpha, "alpha", inputs)
        walks_too = self.network == "affinity"
        source = ctx.source(self.split)
        cams = all_cams(inputs["cams"] / "cams", source.ids)
        start = time.monotonic()
        power = alpha if walks_too else None
        walked = self._walk_all(ctx, source, cams, inputs["checkpoint"], power)
        self._write_masks(ctx, source)
        seconds = time.monotonic() - start
        return {
            "images": len(source),
            "walked": walked,
            "images_per_second": walked / seconds if walked else None,
            "network": self.network,
            **({"alpha": alpha} if walks_too else {"threshold": self.threshold}),
            "beta": self.beta,
            "steps": self.steps,
            "crf": self.crf,
        }

    def _walk_all(
        self,
        ctx: Context,
        source: Source,
        cams: Mapping[str, Path],
        checkpoint: Path,
        power: float | None,
    ) -> int:
        """Writes ``walk/<id>.npz`` of this process's images; returns how many were missing."""
        folder = ctx.stage_dir / "walk"
        folder.mkdir(exist_ok=True)
        how = MultiScale(
            scales=(1.0,),
            flip=False,
            max_pixels=self.max_pixels,
            max_buckets=self.max_buckets,
            batch_pixels=self.batch_pixels,
        )
        sizes = source.sizes
        buckets = how.buckets(set(sizes))
        network = load_network(checkpoint, len(source.classes), self.network)
        mine = range(ctx.process_index, len(source), ctx.process_count)
        walked = 0

        def load(index: int) -> Prepared:
            path = cams[source.ids[index]]
            return prepare(source, index, path, how, power, network.stride)

        with ctx.progress(len(mine), f"random walk of {self.split}") as bar:
            for chunk in chunks(mine, sizes):
                missing = {i for i in chunk if not (folder / f"{source.ids[i]}.npz").exists()}
                if missing:
                    with ThreadPoolExecutor(2) as pool:
                        images = list(pool.map(load, chunk))
                    for index, walk in walk_images(images, network, how, buckets, self):
                        if index in missing:
                            write_walk(folder / f"{source.ids[index]}.npz", walk)
                    walked += len(missing)
                bar.update(len(chunk))
        return walked

    def _write_masks(self, ctx: Context, source: Source) -> None:
        """Writes masks and confidences from the walks: with a CRF in processes, else in threads."""
        folder, sure = ctx.stage_dir / "masks", ctx.stage_dir / CONFIDENCE_FOLDER
        folder.mkdir(exist_ok=True)
        sure.mkdir(exist_ok=True)
        mine = range(ctx.process_index, len(source), ctx.process_count)
        left = [
            i
            for i in mine
            if not all((f / f"{source.ids[i]}.png").exists() for f in (folder, sure))
        ]
        crf = self.crf_alone() if self.crf else None

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
                )

        done = len(mine) - len(left)
        with ctx.progress(len(mine), f"masks of {self.split}", initial=done) as bar:
            if crf is not None:
                workers = worker_count(self.workers, len(left))
                for _ in in_processes(write_mask, tasks(), workers):
                    bar.update()
                return
            with thread_pool() as pool:
                for _ in pool.map(write_mask, tasks()):
                    bar.update()
