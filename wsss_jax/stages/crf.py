"""Refines class activation maps by a dense CRF: ``crf/<id>.npz``."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from wsss_jax.data.formats.cam_files import all_cams
from wsss_jax.data.source import Source
from wsss_jax.errors import UserError
from wsss_jax.host.cam_crf import CamTask, refine_cams
from wsss_jax.host.dense_crf import CrfSettings
from wsss_jax.settings import part
from wsss_jax.stages.base import Context, Needs
from wsss_jax.stages.per_image import ImageWork, PerImageStage
from wsss_jax.stages.references import check_alpha, resolved_alpha


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crf(CrfSettings, PerImageStage):
    """Refines class activation maps by a dense CRF: ``crf/<id>.npz``.

    Reads ``cams/`` of the need ``cams``. For each image and α the CRF starts from the background
    (1 − max)^α and the maps in the image's file, as PSA and SEAM do (see
    `wsss_jax.data.formats.crf_files` for what is written).

    Attributes:
      alphas: multiples of `alpha_unit`, above 0; each has its own result and gives it its name.
      alpha_unit: its products with `alphas` are the exponents of the background (1 − max)^α. A
        number, or ``from:NEED``: the α that meets the threshold of that stage.
      workers: processes; 0: one for each core.
    """

    inputs: ClassVar[Mapping[str, tuple[str, ...]]] = {"cams": ("cams/",)}
    outputs: ClassVar[tuple[str, ...]] = ("crf/",)
    no_effect: ClassVar[frozenset[str]] = frozenset({"workers"})

    alphas: tuple[float, ...] = (4.0, 24.0)
    alpha_unit: float | str = 1.0
    workers: int = 0

    def __post_init__(self) -> None:
        """Checks the exponents.

        Raises:
          UserError: there are none, or one that makes no sense.
        """
        super().__post_init__()
        if not self.alphas or not all(0 < alpha < math.inf for alpha in self.alphas):
            raise UserError(f"expected alphas above 0, such as (4, 24), found {self.alphas}")

    def check(self, needs: Needs) -> None:
        """Refuses what cannot work; see `Stage`."""
        super().check(needs)
        check_alpha(self.alpha_unit, "alpha_unit", needs)

    def run(self, ctx: Context, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Runs the stage; see `Stage`.

        Returns:
          ``images``; ``refined``, how many this run did; ``workers`` and ``images_per_second`` of
          this process (None when nothing was left to do); ``alphas``; ``alpha_unit``, a number.

        Raises:
          UserError: a CAM file is missing, damaged or of another size than its image.
        """
        unit = resolved_alpha(self.alpha_unit, "alpha_unit", inputs)
        source = ctx.source(self.split)
        refine = functools.partial(refine_cams, part(self, CrfSettings), self.alphas, unit)
        work = ImageWork(
            files=("crf/{id}.npz",),
            prepare=cam_tasks(source, inputs["cams"]),
            finish=refine,
            processes=self.workers,
        )
        done = self.on_images(ctx, source, work, "CRF")
        return {
            "images": len(source),
            "refined": len(done.results),
            "workers": done.workers,
            "images_per_second": done.images_per_second,
            "alphas": list(self.alphas),
            "alpha_unit": unit,
        }


def cam_tasks(source: Source, stage: Path) -> Callable[[int], CamTask]:
    """Makes the task of an image of `source` and its maps, which are those of a stage's folder.

    Raises:
      UserError: CAM files are missing.
    """
    cams = all_cams(stage / "cams", source.ids)

    def prepare(position: int) -> CamTask:
        name = source.ids[position]
        return CamTask(name, source[position]["image"], cams[name], len(source.classes))

    return prepare


def expect_alpha(needs: Needs, name: str, alpha: float) -> None:
    """Refuses an α that the crf stage of the need `name` has no result for.

    Raises:
      UserError: see above.
    """
    need = needs[name]
    if isinstance(need.stage, Crf) and alpha not in need.stage.alphas:
        made = ", ".join(f"{one:g}" for one in need.stage.alphas)
        raise UserError(
            f"expected one of the alphas of {need.name}, {made}, found {alpha:g}: change one of"
            " them"
        )
