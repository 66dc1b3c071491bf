"""What the stages have in common that refine maps by a dense CRF, one image at a time.

No JAX in here: worker processes import it.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from wsss_jax.data.formats.cam_files import all_cams
from wsss_jax.host.workers import in_processes, worker_count
from wsss_jax.stages.base import Context

How = TypeVar("How")


@dataclasses.dataclass(frozen=True)
class Task(Generic[How]):
    """One image for a worker: encoded `image`, its CAM file, where the result goes, and how."""

    image_id: str
    image: bytes
    cams: Path
    target: Path
    num_classes: int
    how: How


class Work(NamedTuple):
    """What was done: of `images` of the split, `done` by this process, in `seconds`."""

    images: int
    done: int
    workers: int
    seconds: float

    @property
    def images_per_second(self) -> float | None:
        """None when nothing was left to do."""
        return self.done / self.seconds if self.done else None


def on_all_images(
    ctx: Context,
    split: str,
    workers: int,
    cams: Path,
    function: Callable[[Task[How]], None],
    how: How,
    target: str,
    label: str,
) -> Work:
    """Hands every image and its CAM file to worker processes, but for those that are finished.

    Processes of a run share the images, and each has its own workers.

    Args:
      ctx: of the stage.
      split: whose images.
      workers: processes; 0: one for each core.
      cams: folder of the CAM files.
      function: does a task; of a module, so that a worker finds it.
      how: what it has to know beside the image.
      target: its result in the stage's folder, such as ``masks/*.png``: * is the image's id.
      label: says what is going on.

    Raises:
      UserError: a CAM file is missing, or what `function` raises.
    """
    source = ctx.source(split)
    found = all_cams(cams, source.ids)
    folder, name = (ctx.stage_dir / target).parent, Path(target).name
    folder.mkdir(exist_ok=True)
    targets = [folder / name.replace("*", image_id) for image_id in source.ids]
    mine = range(ctx.process_index, len(source), ctx.process_count)
    left = [i for i in mine if not targets[i].is_file()]
    workers = worker_count(workers, len(left))

    def tasks() -> Iterator[Task[How]]:
        for index in left:
            image_id, image = source.ids[index], source[index]["image"]
            path = found[image_id]
            yield Task(image_id, image, path, targets[index], len(source.classes), how)

    start = time.monotonic()
    done = len(mine) - len(left)
    with ctx.progress(len(mine), f"{label} of {split}", initial=done) as progress:
        for _ in in_processes(function, tasks(), workers):
            progress.update()
    return Work(len(source), len(left), workers, time.monotonic() - start)
