"""The choice between the host and a GPU for the dense CRFs of a stage."""

import dataclasses
import functools
import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal

import jax

from wsss_jax.data.source import Source
from wsss_jax.host.dense_crf import memory
from wsss_jax.host.workers import fitting_note, fitting_workers, timed, worker_count
from wsss_jax.ops.mean_field import DeviceMeanField
from wsss_jax.stages.base import Context, SplitSize
from wsss_jax.stages.per_image import Done, ImageWork, PerImageStage, Size

_CLASSES = 4  # that nearly all images have at most
_TRIAL = 4  # images of each way for each worker


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrfStage(PerImageStage):
    """A per-image stage that finishes images with dense CRFs.

    Attributes:
      workers: the number of processes for the CRF, or 0 for one per core.
      crf_device: where the CRF's mean-field updates are computed: ``host`` is these processes, and
        ``device`` is JAX's default device, for which threads of the host build the lattices. With
        ``auto``, a stage on a GPU measures both ways on its first images and takes the faster one;
        elsewhere it is ``host``. Probabilities differ by rounding, which was less than 1e-5
        on photographs and 2e-4 on noise, so labels are equal except near ties.
    """

    no_effect: ClassVar[frozenset[str]] = frozenset({"workers", "crf_device"})

    workers: int = 0
    crf_device: Literal["auto", "host", "device"] = "auto"

    def crf_labels(self, classes: int) -> int:
        """Returns the labels that its CRFs have at most, or 0 if it has none.

        Args:
          classes: the number of foreground classes of the data.
        """
        return 1 + min(classes, _CLASSES)

    def crf_bytes(self, sizes: Iterable[Size], classes: int) -> int:
        """Returns the memory that a process takes at most for the CRFs of images of `sizes`."""
        labels = self.crf_labels(classes)
        return max((memory(size, labels) for size in set(sizes)), default=0) if labels else 0

    def describe(self, sizes: Mapping[str, SplitSize], asked: bool) -> list[str]:
        """The processes of its CRFs and their memory; see `Stage`."""
        del asked
        split = sizes.get(self.split)
        if split is None or not split.image_sizes:
            return []
        each = self.crf_bytes(split.image_sizes, split.classes)
        workers = worker_count(self.workers, split.images)
        if not each or self.crf_device == "device":
            return []
        fitting = fitting_workers(workers, each)
        if fitting < workers:
            return [f"CRF          {fitting_note(fitting, workers, each)}"]
        return [f"CRF          {workers} processes of up to {each / 2**30:.1f} GiB each"]

    def on_images_with_crf(
        self,
        ctx: Context,
        source: Source,
        work: ImageWork[Any],
        label: str,
        gather: Callable[[int, Any], object] = lambda position, result: None,
    ) -> tuple[Done, dict[str, Any]]:
        """Does this process's share, as `on_images` does, where the CRF is computed faster.

        Args:
          ctx: the context of the run.
          source: the images.
          work: the work on the host, whose `finish` takes the argument `mean_field` of `DenseCrf`.
            Without `processes`, it has no CRF.
          label: the label of the progress bar.
          gather: gets the results of images as in `on_images`, but not of those that were measured,
            which are among the kept ones of the outcome.

        Returns:
          The outcome, and metrics: ``crf_device``, and if both ways were measured, the images that
          all workers finish per second, ``crf_images_per_second``. Without a CRF there are none.
        """
        if work.processes is None:
            return self.on_images(ctx, source, work, label, gather), {}
        finish: Any = work.finish
        finish = functools.partial(finish, mean_field=DeviceMeanField)
        ways = {"host": work, "device": dataclasses.replace(work, finish=finish, processes=None)}
        if self.crf_device != "auto" or jax.default_backend() != "gpu":
            way = "host" if self.crf_device == "auto" else self.crf_device
            return self.on_images(ctx, source, ways[way], label, gather), {"crf_device": way}
        count = _TRIAL * worker_count(self.workers, len(source))
        trials = {
            way: self._trial(ctx, source, one, f"{label} ({way})", count)
            for way, one in ways.items()
        }
        speeds = {way: speed for way, (_, speed) in trials.items()}
        way = max(speeds, key=lambda way: speeds[way])
        measured = {}
        if all(speeds.values()):  # otherwise there were too few images, and none are left
            measured = {"crf_images_per_second": speeds}
            rates = ", ".join(f"{speed:.1f} on the {way}" for way, speed in speeds.items())
            ctx.log(f"images per second with CRF: {rates}; the rest runs on the {way}")
        done = self.on_images(ctx, source, ways[way], label, gather)
        done = dataclasses.replace(
            done,
            made=done.made + sum(trial.made for trial, _ in trials.values()),
            seconds=done.seconds + sum(trial.seconds for trial, _ in trials.values()),
        )
        return done, {"crf_device": way, **measured}

    def _trial(
        self, ctx: Context, source: Source, work: ImageWork[Any], label: str, count: int
    ) -> tuple[Done, float]:
        """Finishes `count` images and returns how many all workers finish per second.

        This follows from the median image, which neither the start of a process nor the compilation
        of a program changes. If no image is left, it is 0.
        """
        seconds: list[float] = []
        timing: Any = dataclasses.replace(work, finish=functools.partial(timed, work.finish))
        done = self.on_images(ctx, source, timing, label, lambda _, one: seconds.append(one), count)
        return done, done.workers / statistics.median(seconds) if seconds else 0.0
