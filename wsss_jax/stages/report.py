"""The stage that draws the report of a run, one self-contained page and one image.

``report.html`` and ``report.png`` are written to the stage's folder and beside the folders of the
stages. Where results of other stages are missing, the report says so in a sentence.
"""

import dataclasses
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write
from wsss_jax.host.provenance import git_revision, versions
from wsss_jax.report.best_masks import next_command
from wsss_jax.report.collect import Evaluation, Run, collect
from wsss_jax.report.explorer import Explorer, make_explorer
from wsss_jax.report.gallery import Sample, make_gallery, map_folders, shown_evaluation
from wsss_jax.report.page import build_page
from wsss_jax.report.picture import draw_picture
from wsss_jax.stages.base import Context, Stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report(Stage):
    """Draws the report of a run, one self-contained page and one image.

    It reads the folders of all stages of the run, whatever its needs are.

    Attributes:
      images_per_group: the number of images shown in each of the groups best, median and worst.
      explorer_images: the most images of each split in the explorer, which shows them with
        their maps and masks; 0 makes a page without it.
      explorer_megabytes: the most megabytes that the explorer adds to the page.
    """

    outputs: ClassVar[tuple[str, ...]] = ("report.html", "report.png")
    redone_freely: ClassVar[bool] = True

    images_per_group: int = 3
    explorer_images: int = 200
    explorer_megabytes: float = 21.0

    def run(self, ctx: Context, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Runs the stage; see `Stage`.

        Returns:
          The names of the files, the numbers of images in the gallery and in the explorer, the size
          of the page in bytes, and ``warnings`` if figures of other stages are damaged.
        """
        if ctx.process_index != 0:
            return {}
        found = collect(ctx.stages, ctx.config, ctx.workdir, ctx.stage)
        evaluation = shown_evaluation(found)
        samples, classes, reason = _pictures(
            ctx, evaluation, self.images_per_group, map_folders(found)
        )
        if not classes:
            classes = _named_classes(found)
        explorer, lost = (None, "") if reason else self._explorer(ctx, found, evaluation)
        provenance, command = _provenance(found), next_command(found, ctx.workdir)
        scored = any(one.stage.metrics.get("iou") for one in found.evaluations)
        labeled = {} if scored or reason else _labeled(ctx, evaluation)
        page = build_page(
            found,
            samples,
            evaluation,
            classes,
            provenance,
            reason,
            explorer,
            lost,
            command,
            labeled,
        )
        files = {
            "report.html": page.encode(),
            "report.png": draw_picture(found, samples, classes),
        }
        for name, data in files.items():
            for folder in (ctx.stage_dir, ctx.workdir):
                with atomic_write(folder / name) as file:
                    file.write(data)
        ctx.log(f"report: {ctx.workdir / 'report.html'}")
        damaged = [ctx.warn(stage.damage) for stage in found.stages if stage.damage]
        return {
            **({"warnings": damaged} if damaged else {}),
            "page": "report.html",
            "picture": "report.png",
            "images_shown": len(samples),
            "images_to_explore": len(explorer.pixels) if explorer else 0,
            "page_bytes": len(files["report.html"]),
        }

    def _explorer(
        self, ctx: Context, found: Run, evaluation: Evaluation | None
    ) -> tuple[Explorer | None, str]:
        """Returns the explorer, if there is something to show, or the reason why it is missing."""
        if evaluation is None:
            return None, ""
        images, megabytes = self.explorer_images, self.explorer_megabytes
        try:
            return make_explorer(found, evaluation, ctx.source, images, megabytes, ctx.seed), ""
        except UserError as error:
            # As with the pictures: the rest is worth a report even if a file is damaged.
            return None, f"The explorer is left out: {error}"


def _pictures(
    ctx: Context, evaluation: Evaluation | None, count: int, maps: tuple[Path, ...]
) -> tuple[list[Sample], tuple[str, ...], str]:
    """Returns the gallery, the classes, and the reason if there are no images."""
    if evaluation is None:
        return [], (), ""
    try:
        source = ctx.source(evaluation.split)
        return make_gallery(evaluation, source, count, maps), tuple(source.classes), ""
    except UserError as error:
        # The scores are worth a report even when the photographs have been moved away.
        return [], (), f"The images are left out: {error}"


def _labeled(ctx: Context, evaluation: Evaluation | None) -> dict[str, int]:
    """Returns the number of images of the split that have each class."""
    if evaluation is None:
        return {}
    source = ctx.source(evaluation.split)
    counts = np.zeros(len(source.classes), np.int64)
    for position in range(len(source)):
        counts += source[position]["label"] > 0
    return dict(zip(source.classes, counts.tolist(), strict=True))


def _named_classes(found: Run) -> tuple[str, ...]:
    """Returns the class names that the scores contain."""
    named = (e.stage.metrics.get("iou", {}) for e in found.evaluations)
    return tuple(dict.fromkeys(name for iou in named for name in iou if name != "background"))


def _provenance(found: Run) -> dict[str, str]:
    program = Path(sys.argv[0])
    # The command as a user types it, and not the path where the interpreter found it.
    typed = ["python", "-m", "wsss_jax.main"] if program.suffix == ".py" else [program.name]
    devices = dict.fromkeys(stage.device for stage in found.stages if stage.device)
    return {
        "Recipe": found.name,
        "Command": shlex.join([*typed, *sys.argv[1:]]),
        "Revision": git_revision(),
        "Devices": ", ".join(devices),
        "Versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
    }
