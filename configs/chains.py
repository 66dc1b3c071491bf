"""The shared part of the recipes of whole chains, from trained maps to a segmentation network."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import common
from wsss_jax.stages.base import Stage

CHOSEN = "from:threshold"
"""The alpha whose background equals the threshold that is chosen without ground truth."""


def with_affinities(
    c: Any,
    *,
    affinity: Any,
    segmentation: Any,
    walk: Mapping[str, Any],
    test: Mapping[str, Any],
    maps: Mapping[str, Any] = common.PSA_MAPS,
    alphas: tuple[float, ...] = (4.0, 24.0),
    alpha_unit: float | str = 1.0,
    bilateral: tuple[float, float, float] = (80, 13, 10),
    relabel: Mapping[str, Any] | None = None,
) -> None:
    """Adds the chain of AffinityNet after `c.train`: seeds, dense CRF, AffinityNet, walk, network.

    Everything is made for the images of ``c.train.split`` (setting it for one stage sets it for
    all) and scored on train, which is a part of it. The seeds and the masks of the segmentation
    network are also scored on val. The threshold of the seeds is the best one on train; the score
    with the threshold that needs no ground truth is reported for comparison.

    Args:
      c: the recipe so far.
      affinity: the training stage of AffinityNet.
      segmentation: the training stage of the network.
      walk: the settings of the random walk.
      test: the settings of the network's masks, such as scales.
      maps: the settings of the maps that differ from AffinityNet's program.
      alphas: the exponents of the CRF's backgrounds, ascending. Each result is scored, and the
        first and the last make AffinityNet's labels.
      alpha_unit: the factor of `alphas`, a number or `CHOSEN`.
      bilateral: the widths and the weight of the CRF's bilateral kernel; see the stage.
      relabel: if not None, the network's masks of the training images, restricted to the
        image-level labels, are also made and scored, with these settings that differ from `test`.
    """
    split = c.train.get_ref("split")
    seeds = _seeds(c, maps)
    c.crf = Stage.defaults(
        "crf",
        needs=dict(cams="cam") | _chosen(alpha_unit),
        split=split,
        alphas=alphas,
        alpha_unit=alpha_unit,
        bilateral=bilateral,
    )
    scored = ["eval_crf_" + f"{alpha:g}".replace(".", "_") for alpha in alphas]
    for name, alpha in zip(scored, alphas, strict=True):
        c[name] = common.score(c, "crf", "train", alpha=alpha)
    c.train_affinity = affinity
    c.train_affinity.split = split
    c.train_affinity.needs = ConfigDict(dict(labels="crf"))
    c.train_affinity.affinity_alphas = (alphas[0], alphas[-1])
    walked = _walked_and_segmented(c, "train_affinity", walk, segmentation, test, relabel)
    common.backbone_weights(c, "train", "train_affinity", "train_segmentation")
    common.finish(c, *seeds, "crf", *scored, "train_affinity", *walked)


def with_boundaries(
    c: Any,
    *,
    labels: Mapping[str, Any],
    irnet: Any,
    segmentation: Any,
    walk: Mapping[str, Any],
    test: Mapping[str, Any],
    maps: Mapping[str, Any] = common.PSA_MAPS,
    relabel: Mapping[str, Any] | None = None,
) -> None:
    """Adds the chain of IRNet after `c.train`: seeds, certain labels, IRNet, walk, network.

    Scores are those of `with_affinities`.

    Args:
      c: the recipe so far.
      labels: the settings of the stage ``irn_labels`` that differ from the published ones.
      irnet: the training stage of IRNet.
      segmentation: the training stage of the network.
      walk: the settings of the random walk.
      test: the settings of the network's masks, such as scales.
      maps, relabel: as in `with_affinities`.
    """
    split = c.train.get_ref("split")
    seeds = _seeds(c, maps)
    c.irn_labels = Stage.defaults("irn_labels", needs=dict(cams="cam"), split=split, **labels)
    c.train_irnet = irnet
    c.train_irnet.split = split
    c.train_irnet.needs = ConfigDict(dict(masks="irn_labels"))
    boundary = dict(network="boundary") | dict(walk)
    walked = _walked_and_segmented(c, "train_irnet", boundary, segmentation, test, relabel)
    common.backbone_weights(c, "train", "train_irnet", "train_segmentation")
    common.finish(c, *seeds, "irn_labels", "train_irnet", *walked)


def _seeds(c: Any, maps: Mapping[str, Any]) -> tuple[str, ...]:
    """Adds maps and their scores, and returns the names of the stages so far."""
    split = c.train.get_ref("split")
    common.cams(c, {"cam": split, "cam_val": "val"}, maps)
    common.seed_scores(c, "cam")
    c.threshold = Stage.defaults("threshold", needs=dict(cams="cam"), split=split)
    c.eval_cam_train.needs.threshold = "threshold"
    c.eval_cam_train.compare = ConfigDict(dict(contrast="from:threshold"))
    return "train", "cam", "threshold", "eval_cam_train", "cam_val", "eval_cam_val"


def _walked_and_segmented(
    c: Any,
    network: str,
    walk: Mapping[str, Any],
    segmentation: Any,
    test: Mapping[str, Any],
    relabel: Mapping[str, Any] | None,
) -> tuple[str, ...]:
    """Adds the walk with the stage `network` and all stages after it, and returns their names."""
    needs = dict(checkpoint=network, cams="cam") | _chosen(walk.get("alpha"))
    c.walk = Stage.defaults("random_walk", needs=needs, split=c.train.get_ref("split"), **walk)
    c.eval_walk = common.score(c, "walk", "train")
    c.train_segmentation = segmentation
    c.train_segmentation.split = c.train.get_ref("split")
    c.train_segmentation.needs = ConfigDict(dict(masks="walk"))
    relabeled: tuple[str, ...] = ()
    if relabel is not None:
        known = dict(test) | dict(relabel) | dict(known_labels=True)
        c.masks_train = network_masks("train_segmentation", known)
        c.masks_train.split = c.train.get_ref("split")
        c.eval_masks_train = common.score(c, "masks_train", "train")
        relabeled = ("masks_train", "eval_masks_train")
    c.masks_val = network_masks("train_segmentation", test)
    c.eval_masks_val = common.score(c, "masks_val", "val")
    walked = ("walk", "eval_walk", "train_segmentation")
    return *walked, *relabeled, "masks_val", "eval_masks_val"


def _chosen(alpha: object) -> dict[str, str]:
    """Returns the needs of a stage for this alpha."""
    return {"threshold": "threshold"} if alpha == CHOSEN else {}


def network_masks(checkpoint: str, test: Mapping[str, Any]) -> ConfigDict:
    """Returns the stage of the masks of val by the network of the stage `checkpoint`.

    `test` has its settings, such as scales; by default, there is no CRF.
    """
    fields: dict[str, Any] = dict(needs=dict(checkpoint=checkpoint), split="val")
    return Stage.defaults("predict", **(fields | dict(test)))


def submission(c: Any, competition: str = "comp6") -> None:
    """Adds masks of the test split and the archive for the server before the report."""
    c.masks_test = ConfigDict(c.masks_val.to_dict())
    c.masks_test.split = "test"
    c.submit = Stage.defaults(
        "submit", needs=dict(pred="masks_test"), split="test", competition=competition
    )
    common.finish(c, *c.stages[:-1], "masks_test", "submit")


def released(chain: Any, name: str, maps: str, walk: str) -> ConfigDict:
    """Returns the recipe of the maps and the walk of a whole chain with published networks.

    Both are made for train and scored there, with the settings of the chain. The threshold of the
    maps is the best one.

    Args:
      chain: the recipe of the whole chain, which would train both networks.
      name: the name of the recipe.
      maps: the weights of the network of the maps, as a file or a name of the catalogue.
      walk: the weights of the network of the walk.
    """
    c: Any = ConfigDict()
    c.name = name
    c.seed = chain.seed
    c.data = chain.data
    c.maps_network = _released(chain.train.method, maps)
    c.cam = _on_train(chain.cam, checkpoint="maps_network")
    c.eval_cam = common.score(c, "cam", "train", threshold="oracle")
    c.walk_network = _released(chain[chain.walk.needs.checkpoint].method, walk)
    c.walk = _on_train(chain.walk, checkpoint="walk_network", cams="cam")
    c.eval_walk = common.score(c, "walk", "train")
    c.protocol = chain.get("protocol", "strict")
    common.finish(c, "maps_network", "cam", "eval_cam", "walk_network", "walk", "eval_walk")
    return c


def _released(method: Any, weights: str) -> ConfigDict:
    return Stage.defaults("released", method=method.to_dict(), weights=weights)


def _on_train(stage: Any, **needs: str) -> ConfigDict:
    """Returns a stage with other needs, for the images of train."""
    section = ConfigDict(stage.to_dict())
    section.split = "train"
    section.needs = ConfigDict(needs)
    return section
