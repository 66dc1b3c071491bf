"""Multi-scale, flipped activation maps of every image: ``cams/<id>.npz``.

Each image is resized to every scale on the host (bicubic, as published), put at the top left of one
of a few padded shapes together with its mirror image, and run with a mask of valid pixels, so that
the maps are those of the exact size. The maps are enlarged to the image and summed on the host.
"""

import dataclasses
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict
from PIL import Image

from wsss_jax.context import Context
from wsss_jax.data.augment import resize_image
from wsss_jax.data.cam_files import write_cams
from wsss_jax.data.images import decode_image
from wsss_jax.data.source import Source
from wsss_jax.errors import UserError
from wsss_jax.files import read_json
from wsss_jax.host_memory import keep_freed_memory
from wsss_jax.ops.buckets import Size, bucket_of, choose_buckets
from wsss_jax.ops.resize import interpolation_matrix
from wsss_jax.sharding import data_mesh, divided, replicated
from wsss_jax.stages.train import build_method
from wsss_jax.train import init_variables
from wsss_jax.weights import load_weights

_EPSILON = 1e-5
_MULTIPLE = 32  # of the padded sides: every backbone's strides divide it
_CHUNK = 32  # images whose maps are made together; a chunk is the unit of resuming

Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class CamRule:
    """How the maps of all scales become one.

    Attributes:
      enlarge: ``corners``: first to the scaled image with aligned corners, then to the original
        (SEAM); ``direct``: to the original at once (PSA, SSENet).
      relu: of the ``sum`` of all maps (SEAM) or of ``each`` (SSENet).
      normalise: ``min_max`` (SEAM) or ``max`` (PSA, SSENet).
    """

    enlarge: str = "corners"
    relu: str = "sum"
    normalise: str = "min_max"

    def __post_init__(self):
        for field, choices in (
            ("enlarge", ("corners", "direct")),
            ("relu", ("sum", "each")),
            ("normalise", ("min_max", "max")),
        ):
            if getattr(self, field) not in choices:
                raise UserError(
                    f"expected {field} to be {' or '.join(choices)}, found"
                    f" {getattr(self, field)!r}: change it"
                )


@dataclasses.dataclass(frozen=True)
class Job:
    """One image at one scale."""

    position: int  # in the chunk
    size: Size


def run(ctx: Context, config: ConfigDict, inputs: dict[str, Path]) -> dict[str, Any]:
    """Runs the stage; see `wsss_jax.stages`.

    Settings: ``split``; ``scales``; ``flip``; ``output`` (which of the method's maps, ``cam``);
    ``rule`` (fields of `CamRule`); ``max_pixels``: a scaled image above it is made smaller (4000 x
    3000 photographs at scale 2 would need hundreds of gigabytes); ``max_buckets``: how many padded
    shapes; ``batch_pixels``: padded pixels a batch holds at most, unless it is one image.
    """
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    source = ctx.source(config.split)
    folder = ctx.stage_dir / "cams"
    folder.mkdir(exist_ok=True)
    settings: dict[str, Any] = config.to_dict()
    rule = CamRule(**settings.get("rule", {}))
    scales = tuple(float(s) for s in settings["scales"])
    limit = int(settings.get("max_pixels", 3_000_000))
    mine = range(ctx.process_index, len(source), ctx.process_count)
    sizes = image_sizes(source)
    buckets = choose_buckets(
        [s for size in set(sizes) for s in scaled_sizes(size, scales, limit)],
        int(settings.get("max_buckets", 12)),
        _MULTIPLE,
    )
    predict, stride = _load_predict(
        ctx, inputs["checkpoint"], len(source.classes), settings.get("output", "cam")
    )
    chunks = [mine[i : i + _CHUNK] for i in range(0, len(mine), _CHUNK)]
    done = 0
    with (
        ctx.progress(len(mine), f"maps of {config.split}") as bar,
        ThreadPoolExecutor(2) as pool,
    ):
        for chunk in chunks:
            missing = [i for i in chunk if not (folder / f"{source.ids[i]}.npz").exists()]
            if missing:
                # The whole chunk again: a map must not depend on where a run was interrupted.
                _infer_chunk(
                    source, chunk, missing, folder, predict, stride, scales, rule, buckets, limit,
                    bool(settings.get("flip", True)), int(settings.get("batch_pixels", 1 << 19)),
                    pool,
                )
                done += len(missing)
            bar.update(len(chunk))
    return {
        "images": len(source),
        "inferred": done,
        "scales": list(scales),
        "flip": bool(settings.get("flip", True)),
        "buckets": [list(b) for b in buckets],
    }


def image_sizes(source: Source) -> list[Size]:
    """(height, width) of every image, from the files' headers."""

    def size(index: int) -> Size:
        with Image.open(io.BytesIO(source[index]["image"])) as image:
            return image.height, image.width

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(size, range(len(source))))


def scaled_sizes(size: Size, scales: tuple[float, ...], max_pixels: int) -> list[Size]:
    """(height, width) at every scale: rounded, at least 1, at most `max_pixels` in all."""
    result = []
    for scale in scales:
        pixels = size[0] * size[1] * scale * scale
        factor = scale * min(1.0, (max_pixels / pixels) ** 0.5)
        result.append((max(round(size[0] * factor), 1), max(round(size[1] * factor), 1)))
    return result


def _load_predict(
    ctx: Context, checkpoint: Path, num_classes: int, output: str
) -> tuple[Predict, int]:
    """The jitted network of a training stage, on all local devices, and its stride."""
    section = read_json(checkpoint / "config.json")
    method = build_method(section["method"], num_classes)
    params, variables = init_variables(method, 0, 64)
    params, variables = load_weights(checkpoint / "weights.npz", params, variables)
    mesh = data_mesh(jax.local_devices())
    weights = jax.device_put({"params": params, **variables}, replicated(mesh))
    placement = divided(mesh)

    def outputs(weights, images, valid):
        predicted = method.predict(weights, images, valid)
        if output not in predicted:
            raise UserError(
                f"expected output to be one of {', '.join(predicted)}, found {output!r}: change it"
            )
        return predicted[output]

    jitted = jax.jit(
        outputs, in_shardings=(replicated(mesh), placement, placement), out_shardings=placement
    )

    def predict(images: np.ndarray, valid: np.ndarray) -> np.ndarray:
        short = -len(images) % mesh.devices.size
        if short:  # every device gets the same number of images
            images = np.concatenate([images, np.zeros((short, *images.shape[1:]), np.uint8)])
            valid = np.concatenate([valid, np.zeros((short, *valid.shape[1:]), bool)])
        return np.asarray(jitted(weights, images, valid))[: len(images) - short]

    probe = jax.eval_shape(
        outputs,
        weights,
        jax.ShapeDtypeStruct((1, 256, 256, 3), np.uint8),
        jax.ShapeDtypeStruct((1, 256, 256), bool),
    )
    return predict, 256 // probe.shape[1]


def _infer_chunk(
    source: Source,
    chunk: range,
    missing: list[int],
    folder: Path,
    predict: Predict,
    stride: int,
    scales: tuple[float, ...],
    rule: CamRule,
    buckets: tuple[Size, ...],
    max_pixels: int,
    flip: bool,
    batch_pixels: int,
    pool: ThreadPoolExecutor,
) -> None:
    records = list(pool.map(source.__getitem__, chunk))
    images = list(pool.map(lambda r: decode_image(r["image"], r["id"]), records))
    keys = [np.flatnonzero(r["label"]).astype(np.int32) for r in records]
    totals = [
        np.zeros((len(k), *image.shape[:2]), np.float32)
        for k, image in zip(keys, images, strict=True)
    ]
    groups: dict[Size, list[Job]] = {}
    for position, image in enumerate(images):
        if len(keys[position]) == 0:
            continue
        for size in scaled_sizes(image.shape[:2], scales, max_pixels):
            groups.setdefault(bucket_of(size, buckets), []).append(Job(position, size))
    copies = 2 if flip else 1
    for bucket, jobs in sorted(groups.items()):
        per_batch = max(batch_pixels // (bucket[0] * bucket[1] * copies), 1)
        for start in range(0, len(jobs), per_batch):
            batch = jobs[start : start + per_batch]
            scaled = pool.map(lambda job: resize_image(images[job.position], *job.size), batch)
            inputs, valid = place(list(scaled), bucket, per_batch, flip)
            maps = predict(inputs, valid)
            for row, job in enumerate(batch):
                for copy in range(copies):
                    cam = maps[copies * row + copy][..., keys[job.position]]
                    cam = cam[: -(-job.size[0] // stride), : -(-job.size[1] // stride)]
                    full = enlarge(cam, job.size, images[job.position].shape[:2], rule)
                    totals[job.position] += full[:, :, ::-1] if copy else full
    for index in missing:
        position = index_in(chunk, index)
        write_cams(
            folder / f"{source.ids[index]}.npz",
            keys[position],
            normalise(totals[position], rule),
        )


def index_in(chunk: range, index: int) -> int:
    """Position of `index` in `chunk`."""
    return chunk.index(index)


def place(
    images: list[UInt8[np.ndarray, "_ _ 3"]], bucket: Size, rows: int, flip: bool
) -> tuple[UInt8[np.ndarray, "n h w 3"], np.ndarray]:
    """Images (each followed by its mirror image with `flip`) at the top left of `bucket`.

    Returns:
      uint8 [rows·copies, H, W, 3], empty where there are fewer images than `rows`, and bool masks.
    """
    copies = 2 if flip else 1
    canvas = np.zeros((rows * copies, *bucket, 3), np.uint8)
    valid = np.zeros((rows * copies, *bucket), bool)
    for row, image in enumerate(images):
        height, width = image.shape[:2]
        for copy in range(copies):
            canvas[copies * row + copy, :height, :width] = image[:, ::-1] if copy else image
            valid[copies * row + copy, :height, :width] = True
    return canvas, valid


def enlarge(
    cam: Float[np.ndarray, "h w k"], scaled: Size, size: Size, rule: CamRule
) -> Float[np.ndarray, "k H W"]:
    """Low-resolution maps of an image of size `scaled` at `size`, see `CamRule`."""

    def matrix(low: int, middle: int, full: int) -> np.ndarray:
        if rule.enlarge == "direct":
            return interpolation_matrix(low, full, align_corners=False)
        return interpolation_matrix(middle, full, align_corners=False) @ interpolation_matrix(
            low, middle, align_corners=True
        )

    rows = matrix(cam.shape[0], scaled[0], size[0])
    columns = matrix(cam.shape[1], scaled[1], size[1])
    full = np.stack([rows @ cam[..., k] @ columns.T for k in range(cam.shape[-1])])
    return np.maximum(full, 0) if rule.relu == "each" else full


def normalise(total: Float[np.ndarray, "k h w"], rule: CamRule) -> Float[np.ndarray, "k h w"]:
    """The summed maps between 0 and 1; a class without response stays 0."""
    cam = np.maximum(total, 0)
    if not len(cam):
        return cam
    high = cam.max((1, 2), keepdims=True)
    if rule.normalise == "max":
        return cam / (high + _EPSILON)
    low = cam.min((1, 2), keepdims=True)
    return np.maximum(cam - low - _EPSILON, 0) / (high - low + _EPSILON)
