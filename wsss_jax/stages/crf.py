"""The stage that refines class activation maps with a dense CRF: ``crf/<id>.npz``."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from wsss_jax.data.formats.cam_files import CamFolder
from wsss_jax.data.source import Source
from wsss_jax.errors import UserError
from wsss_jax.host.cam_crf import CamTask, refine_cams
from wsss_jax.host.dense_crf import CrfSettings
from wsss_jax.settings import part
from wsss_jax.stages.base import Context, Needs
from wsss_jax.stages.crf_stage import CrfStage
from wsss_jax.stages.per_image import ImageWork
from wsss_jax.stages.references import check_alpha, resolved_alpha


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crf(CrfSettings, CrfStage):
    """Refines class activation maps with a dense CRF: ``crf/<id>.npz``.

    It reads ``cams/`` of the need ``cams``. As in PSA and SEAM, for each image and α the CRF starts
    from the maps of the image and the background (1 − max)^α. `wsss_jax.data.formats.crf_files`
    describes the files.

    Attributes:
      alphas: multiples of `alpha_unit` above 0, each of which has a result that it names.
      alpha_unit: the factor of `alphas`; the products are the exponents of the background
        (1 − max)^α. It is a number, or ``from:NEED`` for the α that equals the threshold of that
        stage.
    """

    inputs: ClassVar[Mapping[str, tuple[str, ...]]] = {"cams": ("cams/",)}
    outputs: ClassVar[tuple[str, ...]] = ("crf/",)

    alphas: tuple[float, ...] = (4.0, 24.0)
    alpha_unit: float | str = 1.0

    def __post_init__(self) -> None:
        """Checks the exponents.

        Raises:
          UserError: there are none, or one is not a number above 0.
        """
        super().__post_init__()
        if not self.alphas or not all(0 < alpha < math.inf for alpha in self.alphas):
            raise UserError(
                f"expected alphas above 0, such as (4, 24), found {self.alphas}: change them"
            )

    def check(self, needs: Needs) -> None:
        """Refuses what cannot work; see `Stage`."""
        super().check(needs)
        check_alpha(self.alpha_unit, "alpha_unit", needs)

    def run(self, ctx: Context, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Runs the stage; see `Stage`.

        Returns:
          ``images``; ``refined``, the number that this run did; ``workers`` and
          ``images_per_second`` of this process (None if nothing was left to do); the metrics of
          `CrfStage.on_images_with_crf`; ``alphas``; ``alpha_unit`` as a number.

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
            process_bytes=self.crf_bytes(source.sizes, len(source.classes)),
        )
        done, crf = self.on_images_with_crf(ctx, source, work, "CRF")
        return {
            "images": len(source),
            "refined": done.made,
            "workers": done.workers,
            "images_per_second": done.images_per_second,
            **crf,
            "alphas": list(self.alphas),
            "alpha_unit": unit,
        }


def cam_tasks(source: Source, stage: Path) -> Callable[[int], CamTask]:
    """Returns a function that makes the task of an image from `source` and a stage's maps.

    Raises:
      UserError: CAM files are missing.
    """
    cams = CamFolder(stage / "cams", source.ids)

    def prepare(position: int) -> CamTask:
        name = source.ids[position]
        return CamTask(name, source[position]["image"], cams[name], len(source.classes))

    return prepare


def expect_alpha(needs: Needs, name: str, alpha: float) -> None:
    """Checks that the crf stage of the need `name` has a result for `alpha`.

    Raises:
      UserError: it has none.
    """
    need = needs[name]
    if isinstance(need.stage, Crf) and alpha not in need.stage.alphas:
        made = ", ".join(f"{one:g}" for one in need.stage.alphas)
        raise UserError(
            f"expected one of the alphas of {need.name}, {made}, found {alpha:g}: change one of"
            " them"
        )


def chosen_alpha(alpha: float, stage: str) -> float:
    """Returns `alpha`, the one whose result of the crf stage `stage` is meant.

    Raises:
      UserError: it is 0, which stands for none.
    """
    if not alpha:
        raise UserError(
            f"expected alpha, as {stage} has a result for each alpha, found none: set alpha to one"
            " of them"
        )
    return alpha
