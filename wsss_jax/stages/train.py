"""Trains a method: ``checkpoints/``, ``metrics.jsonl``, ``tensorboard/`` and ``weights.npz``."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from wsss_jax.data.affinity_labels import AffinityLabels
from wsss_jax.data.augment import Augment
from wsss_jax.data.batch_spec import BatchSpec
from wsss_jax.data.confidence import CONFIDENCE_FOLDER
from wsss_jax.data.loader import CropTarget, training_batches
from wsss_jax.data.mask_labels import GroundTruth, MaskLabels
from wsss_jax.data.source import Source
from wsss_jax.errors import UserError
from wsss_jax.files import check_all_found
from wsss_jax.host.host_memory import keep_freed_memory
from wsss_jax.methods.base import Method
from wsss_jax.methods.variables import init_variables
from wsss_jax.ops.sharding import check_divisible, data_mesh
from wsss_jax.stages.base import Context, Needs, expect, expect_alpha
from wsss_jax.training.checkpoints import Checkpoints
from wsss_jax.training.loop import Run, Schedule, fit
from wsss_jax.training.optimizer import assign_rules, make_optimizer, parameter_count, split_frozen
from wsss_jax.weights.import_weights import import_backbone
from wsss_jax.weights.npz import load_weights, save_weights


def steps_of(config: Mapping[str, Any], images: int) -> int:
    """Steps of the run: whole batches per epoch times epochs, unless ``steps`` is set."""
    if config.get("steps"):
        return int(config["steps"])
    return max(images // config["batch_size"], 1) * config["epochs"]


MAKES = ("weights.npz",)


def check(config: ConfigDict, needs: Needs) -> None:
    """Refuses what cannot work; see `wsss_jax.stages.base`."""
    settings: dict[str, Any] = config.to_dict()
    method = Method.from_config(settings["method"], "method", num_classes=1)
    augment = Augment.from_config(settings["augment"], "augment")
    batch_spec(settings, method).shapes(1, augment.crop, 1)
    make_optimizer(settings["optimizer"], {}, 1)
    for name in ("init", "backbone"):
        if name in needs:
            expect(needs, name, "weights.npz")
    if "masks" in needs:
        expect(needs, "masks", "masks/")
    if _least_confidence(settings):
        expect(needs, "masks", "confidence/")
    alphas = _alphas(settings)
    if method.batch_spec().affinity_stride:
        AffinityLabels(Path(), alphas, 1, method.batch_spec().affinity_stride)
        expect(needs, "labels", "crf/")
        for alpha in alphas:
            expect_alpha(needs, "labels", alpha)


def _alphas(settings: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(float(alpha) for alpha in settings.get("affinity_alphas", ()))


def _least_confidence(settings: Mapping[str, Any]) -> float:
    least = float(settings.get("least_confidence", 0))
    if not 0 <= least <= 1:
        raise UserError(f"expected least_confidence in 0…1, found {least:g}: change it")
    return least


def batch_spec(settings: Mapping[str, Any], method: Method) -> BatchSpec:
    """What the batches of a training section have beside images and labels.

    Raises:
      UserError: the section does not say where the method's masks or labels come from.
    """
    spec = method.batch_spec()
    masks = "masks" in settings.get("needs", {}) or settings.get("segmentation", False)
    if spec.segmentation and not masks:
        raise UserError(
            "expected masks that this method learns from, found none: set needs=dict(masks=STAGE),"
            " or segmentation=True for the data's own"
        )
    if spec.affinity_stride and not _alphas(settings):
        raise UserError(
            "expected affinity_alphas that make this method's labels, found none: set"
            " affinity_alphas=(4, 24) and needs=dict(labels=STAGE), a crf stage"
        )
    return spec


def crop_targets(
    spec: BatchSpec, settings: Mapping[str, Any], source: Source, inputs: Mapping[str, Path]
) -> dict[str, CropTarget]:
    """What the pixels of the crops learn: masks or AffinityNet's labels.

    Raises:
      UserError: an image has no mask, confidence or CRF result, a setting makes no sense, or
        affinity_alphas has no need ``labels``.
    """
    targets: dict[str, CropTarget] = {}
    if spec.segmentation and "masks" in inputs:
        targets["segmentation"] = _stage_masks(settings, source, inputs["masks"])
    elif spec.segmentation:
        targets["segmentation"] = GroundTruth(len(source.classes))
    if spec.affinity_stride:
        if "labels" not in inputs:
            raise UserError(
                "expected a need labels, a crf stage, for affinity_alphas, found none: set"
                " needs=dict(labels='...')"
            )
        folder = inputs["labels"] / "crf"
        targets["affinity_label"] = AffinityLabels(
            folder, _alphas(settings), len(source.classes), spec.affinity_stride
        )
        missing = [name for name in source.ids if not (folder / f"{name}.npz").is_file()]
        check_all_found("CRF result", missing, len(source.ids), folder)
    return targets


def _stage_masks(settings: Mapping[str, Any], source: Source, made: Path) -> MaskLabels:
    folder = made / "masks"
    _check_pngs("mask", folder, source)
    least = _least_confidence(settings)
    if not least:
        return MaskLabels(folder, len(source.classes))
    sure = made / CONFIDENCE_FOLDER
    _check_pngs("confidence", sure, source)
    return MaskLabels(folder, len(source.classes), least, sure)


def _check_pngs(what: str, folder: Path, source: Source) -> None:
    missing = [name for name in source.ids if not (folder / f"{name}.png").is_file()]
    check_all_found(f"{what} (.png)", missing, len(source.ids), folder)


def run(ctx: Context, config: ConfigDict, inputs: dict[str, Path]) -> dict[str, Any]:
    """Runs the stage; see `wsss_jax.stages`.

    Reads ``split``, ``batch_size``, ``epochs`` (or ``steps``), ``method``, ``optimizer``,
    ``augment``, ``init_weights`` (backbone weights) and the rhythm of logs and checkpoints. With a
    need ``init`` all weights start from that training stage's, with ``backbone`` those of the
    backbone. With ``affinity_alphas`` (two, the smaller first) AffinityNet's labels come from the
    crf stage of the need ``labels``. A segmentation network learns from the masks of the need
    ``masks``, where they are as sure as ``least_confidence`` (0…1), or with ``segmentation`` from
    the data's own.
    """
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    settings: dict[str, Any] = config.to_dict()
    source = ctx.source(settings["split"])
    mesh = data_mesh()
    check_divisible(settings["batch_size"], mesh)
    method = Method.from_config(settings["method"], "method", num_classes=len(source.classes))
    augment = Augment.from_config(settings["augment"], "augment")
    whole: Any = ctx.config
    seed = int(whole.seed)
    params, variables = init_variables(method, seed, augment.crop)
    if settings.get("init_weights"):
        path = Path(settings["init_weights"]).expanduser()
        params, variables = import_backbone(path, method.backbone, params, variables, ctx.log)
    if "init" in inputs:
        params, variables = load_weights(inputs["init"] / "weights.npz", params, variables)
    if "backbone" in inputs:
        path = inputs["backbone"] / "weights.npz"
        params, variables = load_weights(path, params, variables, "backbone")
    trainable, frozen = split_frozen(params, assign_rules(params, method.param_rules()))
    ctx.log(
        f"{parameter_count(trainable):,} parameters to train, {parameter_count(frozen):,} frozen;"
        f" {len(source)} images, {mesh.devices.size} device(s)"
    )
    steps = steps_of(settings, len(source))
    spec = batch_spec(settings, method)
    checkpoint_every = int(settings.get("checkpoint_every") or max(steps // 10, 1))
    batches = training_batches(
        source,
        batch_size=settings["batch_size"],
        augment=augment,
        seed=seed,
        steps=steps,
        process_index=ctx.process_index,
        process_count=ctx.process_count,
        spec=spec,
        targets=crop_targets(spec, settings, source, inputs),
        num_threads=int(settings.get("num_threads", 2)),
        prefetch=int(settings.get("prefetch", 4)),
    )
    folder = ctx.stage_dir / "checkpoints"
    with closing(Checkpoints(folder, int(settings.get("keep", 2)))) as checkpoints:
        training = Run(
            method=method,
            optimizer_config=settings["optimizer"],
            mesh=mesh,
            schedule=Schedule(
                steps,
                int(settings.get("log_every", 10)),
                int(settings.get("image_every", 0)),
                checkpoint_every,
            ),
            batch_size=settings["batch_size"],
            batches=batches,
            checkpoints=checkpoints,
            folder=ctx.stage_dir,
            ids=list(source.ids),
            log=ctx.log,
            progress=ctx.progress,
        )
        state, figures = fit(training, params, variables, seed)
    if ctx.process_index == 0:
        final = method.inference_params(state.params, state.extra)
        save_weights(ctx.stage_dir / "weights.npz", final, state.model_state)
    return {
        **figures,
        "parameters": parameter_count(params),
        "trainable_parameters": parameter_count(trainable),
        "images": len(source),
        "classes": list(source.classes),
    }
