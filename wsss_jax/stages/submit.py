"""The stage that packs masks for PASCAL VOC's evaluation server: ``submission.tar.gz``."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from wsss_jax.data.formats.voc_submission import (
    check_archive,
    mask_fault,
    write_archive,
)
from wsss_jax.data.masks import decode_mask, encode_mask
from wsss_jax.errors import UserError
from wsss_jax.files import check_files, read_bytes
from wsss_jax.stages.base import Context, Stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Submit(Stage):
    """Packs masks for PASCAL VOC's evaluation server: ``submission.tar.gz``.

    It reads ``masks/`` of the need ``pred``, writes them with the VOC palette and checks the
    finished archive. Only the first process does this.

    Attributes:
      split: the split whose masks are packed.
      competition: ``comp5`` for networks trained only on VOC's data, or ``comp6`` for others.
    """

    inputs: ClassVar[Mapping[str, tuple[str, ...]]] = {"pred": ("masks/",)}
    outputs: ClassVar[tuple[str, ...]] = ("submission.tar.gz",)

    split: str
    competition: Literal["comp5", "comp6"] = "comp6"

    def run(self, ctx: Context, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Runs the stage; see `Stage`.

        Returns:
          ``images``, ``archive`` (its name) and ``bytes``.

        Raises:
          UserError: a mask is missing, damaged, of another size than its image, or has undecided
            pixels (255).
        """
        if ctx.process_index != 0:
            return {}
        source = ctx.source(self.split)
        folder = inputs["pred"] / "masks"
        check_files("mask (.png)", folder, source.ids, ".png")
        num_classes = len(source.classes)
        sizes = dict(zip(source.ids, source.sizes, strict=True))

        def masks() -> Iterator[tuple[str, bytes]]:
            with ctx.progress(len(source.ids), ctx.stage) as progress:
                for image_id in source.ids:
                    path = folder / f"{image_id}.png"
                    png = encode_mask(decode_mask(read_bytes(path), str(path), num_classes))
                    fault = mask_fault(png, sizes[image_id], num_classes)
                    if fault:
                        raise UserError(
                            f"{path}: {fault}: the server needs a class for every pixel"
                        )
                    yield image_id, png
                    progress.update()

        archive = ctx.stage_dir / "submission.tar.gz"
        write_archive(archive, masks(), self.competition)
        check_archive(archive, source.ids, sizes.__getitem__, num_classes, self.competition)
        ctx.log(f"{archive}: {len(source.ids)} masks for the server, checked")
        size = archive.stat().st_size
        return {"images": len(source.ids), "archive": archive.name, "bytes": size}
