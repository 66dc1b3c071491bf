"""The stage that samples features of each class inside and outside its maps: ``features/``."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int, UInt8

from wsss_jax.accelerators.programs import DeviceProgram
from wsss_jax.data.augment import resize_image
from wsss_jax.data.formats.cam_files import CamFolder, read_cams
from wsss_jax.data.formats.feature_files import Samples, write_samples
from wsss_jax.data.images import decode_image
from wsss_jax.data.source import Source
from wsss_jax.data.threads import ahead, thread_count, thread_pool
from wsss_jax.errors import UserError
from wsss_jax.host.feature_samples import Draw, sides_of
from wsss_jax.inference.multi_scale import PaddedShapes
from wsss_jax.inference.network import Network, load_network
from wsss_jax.methods.prediction import FEATURES
from wsss_jax.models.taps import map_size
from wsss_jax.ops.buckets import Batch, place
from wsss_jax.settings.limits import check_limits, check_shares
from wsss_jax.stages.base import Context, Needs, SplitSize
from wsss_jax.stages.network_programs import (
    image_sizes,
    local_mesh,
    network_programs,
    padded_shapes,
    trained_method,
)
from wsss_jax.stages.per_image import ImageWork, PerImageStage

SIDES = ("inside", "outside")


class _Job(NamedTuple):
    """An image at the size at which it runs, or None if no feature of it is sampled."""

    position: int
    image: UInt8[np.ndarray, "h w 3"] | None


class _Task(NamedTuple):
    position: int
    features: Float[np.ndarray, "h w d"] | None


_Places = Mapping[int, Sequence[tuple[int, bool, Int[np.ndarray, " _"]]]]
"""The sampled pixels by image: class, whether they are inside its map, and positions."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassFeatures(PaddedShapes, PerImageStage):
    """Samples features of each class inside and outside its maps: ``features/<id>.npz``.

    They are ``conv6`` of the network of the need ``checkpoint``, for the image at its own size. The
    maps of the need ``cams`` tell on which side of the threshold a pixel is. See
    `wsss_jax.data.formats.feature_files`.

    Attributes:
      threshold: above it, pixels are inside the map of a class, and below it, they are outside.
      samples: the most features of a class on each side, which are drawn with the recipe's seed if
        there are more. LPCAM's program keeps all, which would be about 100 GB for VOC and
        ResNet-50.
    """

    inputs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "checkpoint": ("weights.npz",),
        "cams": ("cams/",),
    }
    outputs: ClassVar[tuple[str, ...]] = ("features/",)

    threshold: float = 0.1
    samples: int = 5000

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: a value is out of its range.
        """
        super().__post_init__()
        check_shares(self, "threshold")
        check_limits(self, samples=(1, math.inf))

    def programs(
        self, sizes: Mapping[str, SplitSize], needs: Needs, mesh: Mesh
    ) -> list[DeviceProgram]:
        """The backbone in every padded shape; see `Stage`."""
        size = sizes.get(self.split)
        method = trained_method(needs, size)
        if method is None:
            return []
        local, processes = local_mesh(mesh)
        scaled = [(self.scaled(one),) for one in image_sizes(size)]
        plan = self.padded(scaled, method.backbone, devices=local.devices.size)
        shapes = padded_shapes(plan, 1, size, processes)
        return network_programs(method, FEATURES, shapes, size, local)

    def run(self, ctx: Context, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Runs the stage; see `Stage`.

        Returns:
          ``images``, ``sampled`` (the number that this run did), ``images_per_second``, ``found``
          (the number of pixels on each side of each class, of which at most `samples` are drawn),
          and the settings.

        Raises:
          UserError: the network is missing, or a CAM file is missing, damaged or of another size
            than its image.
        """
        source = ctx.source(self.split)
        network = load_network(inputs["checkpoint"], len(source.classes), FEATURES)
        cams = CamFolder(inputs["cams"] / "cams", source.ids)
        places, found = self._choose(ctx, source, cams, network.stride)
        scaled = {size: (self.scaled(size),) for size in set(source.sizes)}
        plan = self.padded(
            [scaled[size] for size in source.sizes], network.backbone, devices=network.devices
        )

        def prepare(position: int) -> _Job:
            if position not in places:
                return _Job(position, None)
            record = source[position]
            image = decode_image(record["image"], record["id"])
            return _Job(position, resize_image(image, *self.scaled(image.shape[:2])))

        def finish(task: _Task, paths: tuple[Path, ...]) -> None:
            write_samples(paths[0], _samples(task.features, places.get(task.position, ())))

        work = ImageWork(
            files=("features/{id}.npz",),
            prepare=prepare,
            plan=plan.batches,
            # A generator expression calls `_on_device`, which starts the batch, at once.
            on_device=lambda batch, jobs: (
                (task.position, task) for task in _on_device(network, batch, jobs)
            ),
            sizes=source.sizes,
            finish=finish,
        )
        done = self.on_images(ctx, source, work, "features")
        return {
            "images": len(source),
            "sampled": done.made,
            "images_per_second": done.images_per_second,
            "found": found,
            "threshold": self.threshold,
            "samples": self.samples,
        }

    def _choose(
        self, ctx: Context, source: Source, cams: CamFolder, stride: int
    ) -> tuple[_Places, dict[str, dict[str, int]]]:
        """Draws the pixels to sample from all images, and counts those to draw from."""
        draws = {
            (key, side): Draw(self.samples) for key in range(len(source.classes)) for side in SIDES
        }

        def sides(position: int) -> list[tuple[int, tuple[np.ndarray, np.ndarray]]]:
            path, size = cams[source.ids[position]], source.sizes[position]
            keys, cam = read_cams(path, len(source.classes))
            if len(keys) and cam.shape[1:] != tuple(size):
                raise UserError(
                    f"{path}: expected maps of {size[1]}×{size[0]} pixels like image"
                    f" {source.ids[position]}, found {cam.shape[2]}×{cam.shape[1]}: make them from"
                    " the same images"
                )
            low = map_size(self.scaled(size), stride)
            return [
                (int(key), sides_of(one, low, self.threshold))
                for key, one in zip(keys, cam, strict=True)
            ]

        groups = ([position] for position in range(len(source)))
        with ctx.progress(len(source), f"maps of {self.split}") as progress, thread_pool() as pool:
            for position, (of_classes,) in enumerate(ahead(pool, sides, groups, thread_count())):
                # Each image has its own generator, so that the order of images does not matter.
                rng = np.random.default_rng((ctx.seed, position))
                for key, both in of_classes:
                    for side, one in zip(SIDES, both, strict=True):
                        draws[key, side].add(position, one, rng.random(len(one)))
                progress.update()
        chosen: defaultdict[int, list[tuple[int, bool, np.ndarray]]] = defaultdict(list)
        for (key, side), draw in draws.items():
            images, places = draw.drawn()
            starts = np.flatnonzero(np.diff(images, prepend=-1))
            for image, own in zip(images[starts], np.split(places, starts[1:]), strict=False):
                chosen[int(image)].append((key, side == "inside", own))
        found = {
            name: {side: draws[key, side].found for side in SIDES}
            for key, name in enumerate(source.classes)
        }
        return dict(chosen), found


def _on_device(network: Network, batch: Batch, jobs: Sequence[_Job]) -> Iterator[_Task]:
    """Starts to run a batch; the iterator waits for the features of its images."""
    images = [job.image for job in jobs if job.image is not None]
    found = None
    if images:
        (bucket,) = batch.bucket
        found = network.predict(*place(images, bucket, batch.rows))
    return _tasks(network.stride, jobs, found)


def _tasks(stride: int, jobs: Sequence[_Job], found: jax.Array | None) -> Iterator[_Task]:
    on_host = iter(() if found is None else np.asarray(found))
    for job in jobs:
        if job.image is None:
            yield _Task(job.position, None)
            continue
        height, width = map_size((job.image.shape[0], job.image.shape[1]), stride)
        yield _Task(job.position, next(on_host)[:height, :width])


def _samples(
    features: Float[np.ndarray, "h w d"] | None,
    places: Sequence[tuple[int, bool, Int[np.ndarray, " _"]]],
) -> Samples:
    """Returns the features at `places`; those of length zero have no direction and are left out."""
    if features is None:
        return Samples(np.zeros(0, np.int32), np.zeros(0, bool), np.zeros((0, 0), np.float32))
    counts = [len(own) for _, _, own in places]
    keys = np.repeat(np.array([key for key, _, _ in places], np.int32), counts)
    inside = np.repeat(np.array([side for _, side, _ in places], bool), counts)
    rows = features.reshape(-1, features.shape[-1])[np.concatenate([own for _, _, own in places])]
    some = rows.any(1)
    return Samples(keys[some], inside[some], rows[some].astype(np.float32))
