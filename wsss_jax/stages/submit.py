"""Packs masks for PASCAL VOC's evaluation server: ``submission.tar.gz``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from wsss_jax.data.formats.voc_submission import (
    check_archive,
    folder_in_archive,
    mask_fault,
    write_archive,
)
from wsss_jax.data.images import decode_mask, encode_mask
from wsss_jax.errors import UserError
from wsss_jax.files import check_all_found, read_bytes
from wsss_jax.stages.base import Context, Needs, expect

MAKES = ("submission.tar.gz",)


def check(config: ConfigDict, needs: Needs) -> None:
    """Refuses what cannot work; see `wsss_jax.stages.base`."""
    folder_in_archive(str(config.get("competition", "comp6")))
    expect(needs, "pred", "masks/")


def run(ctx: Context, config: ConfigDict, inputs: dict[str, Path]) -> dict[str, Any]:
    """Runs the stage; see `wsss_jax.stages`.

    Takes ``masks/`` of the need ``pred``, writes them with the VOC palette and checks the finished
    archive. Settings: ``split`` and ``competition`` (``comp6``; see `wsss_jax.submission`). The
    first process does it.

    Returns:
      ``images``, ``archive`` (its name) and ``bytes``.

    Raises:
      UserError: a mask is missing, damaged, of another size than its image, or has undecided
        pixels (255).
    """
    if ctx.process_index != 0:
        return {}
    settings: dict[str, Any] = config.to_dict()
    source = ctx.source(settings["split"])
    competition = settings.get("competition", "comp6")
    folder = inputs["pred"] / "masks"
    missing = [name for name in source.ids if not (folder / f"{name}.png").is_file()]
    check_all_found("mask (.png)", missing, len(source.ids), folder)
    num_classes = len(source.classes)
    sizes = dict(zip(source.ids, source.sizes, strict=True))

    def masks() -> Iterator[tuple[str, bytes]]:
        with ctx.progress(len(source.ids), ctx.stage) as progress:
            for image_id in source.ids:
                path = folder / f"{image_id}.png"
                png = encode_mask(decode_mask(read_bytes(path), str(path), num_classes))
                fault = mask_fault(png, sizes[image_id], num_classes)
                if fault:
                    raise UserError(f"{path}: {fault}; the server wants a class for every pixel")
                yield image_id, png
                progress.update()

    archive = ctx.stage_dir / "submission.tar.gz"
    write_archive(archive, masks(), competition)
    check_archive(archive, source.ids, sizes.__getitem__, num_classes, competition)
    ctx.log(f"{archive}: {len(source.ids)} masks for the server, checked")
    size = archive.stat().st_size
    return {"images": len(source.ids), "archive": archive.name, "bytes": size}
