"""The shared part of the recipes, mainly the stages after a classifier."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference

from wsss_jax.methods.base import Method
from wsss_jax.settings import kind_of
from wsss_jax.stages.base import Stage
from wsss_jax.training.evaluators.base import Evaluator

PSA_MAPS: dict[str, Any] = dict(normalize="max", upsample="direct")
"""The settings with which AffinityNet's program makes maps."""
SSENET_MAPS: dict[str, Any] = PSA_MAPS | dict(relu_each=True)
"""The settings of SSENet's program, which drops negative responses at each scale before the sum."""
LPCAM_MAPS: dict[str, Any] = PSA_MAPS | dict(
    scales=(1.0, 0.5, 1.5, 2.0), relu_each=False, flip=False
)
"""The settings of LPCAM's program; its network runs on the flipped image by itself."""
SEAM_MAPS: dict[str, Any] = dict(normalize="min_max", upsample="corners")
"""The settings with which SEAM's program makes maps."""


def training(**settings: Any) -> Any:
    """Returns a training stage.

    It has an evaluator, ``val``, which is off. ``--config.STAGE.evaluators.val.every=200`` measures
    the mIoU on val while the network trains.
    """
    return Stage.defaults("train", evaluators=evaluators(settings["method"]["name"]), **settings)


def evaluators(method: str) -> dict[str, ConfigDict]:
    """Returns an evaluator of the predictions of the method called `method`, if it has scores."""
    for output in ("cam", "logits"):
        if output in kind_of(Method, method).outputs:
            return {"val": Evaluator.defaults("miou", output=output, images=100)}
    return {}


def backbone_weights(c: Any, *stages: str) -> None:
    """Makes several training stages share a file of ImageNet weights.

    Setting ``init_weights`` of any of them, or ``--config.init_weights``, sets it for all.
    """
    c.init_weights = FieldReference("")
    for stage in stages:
        c[stage].init_weights = c.get_ref("init_weights")


def start_from(c: Any, weights: str, **backbone: Any) -> None:
    """Gives all training stages this backbone, and published weights to start from."""
    c.init_weights = weights
    for stage in c.stages:
        if c[stage].type == "train":
            kept = {k: v for k, v in c[stage].method.backbone.items() if k == "bn_momentum"}
            c[stage].method.backbone = ConfigDict(kept | backbone)


def seeds_and_scores(c: Any, **maps: Any) -> None:
    """Adds the stages after training: CAMs of train and val, scores, masks, report.

    The background threshold is the best one on train, as in SSENet and SEAM. It is also used to
    score val and to make the masks. A number in place of ``oracle`` or ``from:...`` fixes it.

    Args:
      c: the recipe so far.
      **maps: the settings of the maps that differ from `PSA_MAPS`.
    """
    cams(c, {"cam_train": "train", "cam_val": "val"}, maps)
    seed_scores(c, "cam_train")
    c.pseudo_labels = Stage.defaults(
        "pseudo_labels",
        needs=dict(cams="cam_train", train="eval_cam_train"),
        split="train",
        threshold="from:train",
    )
    c.eval_pseudo_labels = score(c, "pseudo_labels", "train")
    backbone_weights(c, "train")
    finish(
        c,
        "train",
        *("cam_train", "eval_cam_train"),
        *("cam_val", "eval_cam_val"),
        *("pseudo_labels", "eval_pseudo_labels"),
    )


def change_maps(c: Any, **maps: Any) -> None:
    """Changes the settings of all stages that make maps."""
    for stage in c.stages:
        if c[stage].type == "infer_cam":
            c[stage].update(maps)


def contrast_first(c: Any) -> None:
    """Adds a training stage without L_MAM before `c.train`, which then starts from its weights."""
    first: Any = ConfigDict(c.train.to_dict())
    first.method.mam_weight = 0.0
    begin_with(c, "train_rcm", first)


def recam_after_cam(c: Any, **settings: Any) -> None:
    """Makes `c.train`, which trains a CAM, the stage ``train_cam``, and adds ReCAM after it.

    Args:
      c: the recipe so far.
      **settings: the settings of ReCAM's method that differ from its defaults.
    """
    cam: Any = ConfigDict(c.train.to_dict())
    backbone = c.train.method.backbone.to_dict()
    c.train.method = Method.defaults("recam", backbone=backbone, **settings)
    begin_with(c, "train_cam", cam)
    change_maps(c, **SSENET_MAPS)


def begin_with(c: Any, name: str, first: Any) -> None:
    """Adds the training stage `first` before `c.train`, which then starts from its weights."""
    c[name] = first
    first.split = c.train.get_ref("split")
    first.init_weights = c.get_ref("init_weights")
    del c.train.init_weights
    c.train.init_weights = ""
    c.train.needs = ConfigDict(dict(init=name))
    finish(c, name, *c.stages[:-1])


def local_prototypes(c: Any, **maps: Any) -> None:
    """Makes all maps of a recipe with LPCAM from its classifier, which stays as it is.

    The maps of the classifier itself, which only tell where features are sampled, are in the stage
    ``plain_cam``.

    Args:
      c: the recipe, whose training `c.train` is the classifier's.
      **maps: the settings of the maps that differ from those of LPCAM's program.
    """
    made = [name for name in c.stages if c[name].type == "infer_cam"]
    split = c[made[0]].get_ref("split")
    c.plain_cam = ConfigDict(c[made[0]].to_dict())
    c.class_features = Stage.defaults(
        "class_features", needs=dict(checkpoint="train", cams="plain_cam"), split=""
    )
    c.prototypes = Stage.defaults(
        "prototypes",
        needs=dict(checkpoint="train", features="class_features"),
        split="",
        method=dict(name="lpcam", backbone=c.train.method.backbone.to_dict()),
    )
    added = "plain_cam", "class_features", "prototypes"
    for name in added:
        c[name].split = split
    for name in made:
        c[name].update(LPCAM_MAPS | maps)
        c[name].needs.checkpoint = "prototypes"
    first = c.stages.index("train") + 1
    finish(c, *c.stages[:first], *added, *c.stages[first:-1])


def cams(c: Any, splits: Mapping[str, Any], maps: Mapping[str, Any]) -> None:
    """Adds the maps of `splits`, which are splits or references to them by stage name.

    Settings that `maps` does not have are those of `PSA_MAPS`.
    """
    for name, split in splits.items():
        settings = PSA_MAPS | dict(maps)
        c[name] = Stage.defaults(
            "infer_cam", needs=dict(checkpoint="train"), split=split, **settings
        )


def seed_scores(c: Any, train_cams: str) -> None:
    """Adds scores of the maps on train (stage `train_cams`) and, with their threshold, on val."""
    c.eval_cam_train = score(c, train_cams, "train", threshold="oracle")
    c.eval_cam_val = score(c, "cam_val", "val", threshold="from:train")
    c.eval_cam_val.needs.train = "eval_cam_train"


def score(c: Any, pred: str, split: str, **settings: Any) -> Any:
    """Returns an evaluation with the protocol that all evaluations share, ``c.protocol``."""
    if "protocol" not in c:
        c.protocol = FieldReference("strict")
    section = Stage.defaults("evaluate", needs=dict(pred=pred), split=split, **settings)
    section.protocol = c.get_ref("protocol")
    return section


def finish(c: Any, *stages: str) -> None:
    """Sets the order of the stages and adds a report on all of them."""
    c.report = Stage.defaults("report", needs={name: name for name in stages})
    c.stages = (*stages, "report")
