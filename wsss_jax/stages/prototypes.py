"""The stage that makes LPCAM's network of a classifier and sampled features: ``weights.npz``."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from wsss_jax.data.formats.feature_files import read_sampled_classes, read_samples
from wsss_jax.errors import UserError, first
from wsss_jax.files import check_files, make_again
from wsss_jax.host.cosine_kmeans import cosine_kmeans
from wsss_jax.host.prototype_choice import contexts, probabilities, prototypes
from wsss_jax.inference.network import read_network
from wsss_jax.methods.lpcam import LpCam
from wsss_jax.methods.prediction import FEATURES
from wsss_jax.methods.variables import variable_shapes
from wsss_jax.models.base import Backbone
from wsss_jax.settings import name_of
from wsss_jax.settings.limits import check_limits, check_positive, check_shares
from wsss_jax.stages.base import Context, Needs
from wsss_jax.stages.network import ASSUMED_CLASSES, NetworkStage
from wsss_jax.weights.npz import save_weights

_SIDES = ("foreground", "context")
"""The arrays of the network: of clusters inside and outside the maps of a class."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prototypes(NetworkStage):
    """Makes LPCAM's network of a classifier and features of its classes: ``weights.npz``.

    It clusters the features of the need ``features`` per class, inside and outside its maps, and
    asks the classifier of the need ``checkpoint`` which clusters are prototypes of the class, and
    which are its context. Later stages use the result as they use the network of a training stage.
    Only the first process does this, for one class after the other.

    Attributes:
      split: the split from which the features are.
      method: ``lpcam`` with the backbone of the classifier. Its `clusters` is the number of
        clusters on each side.
      tolerance: clustering ends when the square of the summed lengths by which the centers moved is
        below it, in the units of the features squared.
      iterations: the most iterations of the clustering; LPCAM's program has no limit.
      prototype: the probability above which a cluster inside the maps is a prototype.
      context: the probabilities between which a cluster outside the maps is context.
    """

    inputs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "checkpoint": ("weights.npz",),
        "features": ("features/",),
    }

    tolerance: float = 5.0
    iterations: int = 100
    prototype: float = 0.9
    context: tuple[float, float] = (0.05, 0.9)

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: a value is out of its range, or the method is another one.
        """
        super().__post_init__()
        check_positive(self, "tolerance")
        check_limits(self, iterations=(1, math.inf), context=(0, 1))
        check_shares(self, "prototype")
        low, high = self.context
        if low > high:
            raise UserError(
                f"expected low <= high in context, found ({low:g}, {high:g}): change it"
            )
        if not isinstance(self.method, LpCam):
            raise UserError(
                f"expected the method lpcam in a stage of type prototypes, found"
                f" {name_of(type(self.method))}: change it"
            )

    def check(self, needs: Needs) -> None:
        """Refuses features of another network, and networks without a classifier; see `Stage`."""
        super().check(needs)
        network, features = needs["checkpoint"], needs["features"]
        origin = features.stage.needs.get("checkpoint", network.name)
        if origin != network.name:
            raise UserError(
                f"expected needs.features to name a stage that samples features of {network.name},"
                f" which needs.checkpoint names, found {features.name}, which samples those of"
                f" {origin}: change one of the two"
            )
        if not isinstance(network.stage, NetworkStage):
            return
        theirs = network.stage.method_for(ASSUMED_CLASSES)
        if _at_inference(theirs.backbone) != _at_inference(self.method.backbone):
            raise UserError(
                f"expected method.backbone to have the settings of that of {network.name}, whose"
                " features are clustered, found other ones: change one of the two"
            )
        # A layer of features may have as many columns as there are classes, but not twice.
        for classes in (ASSUMED_CLASSES, ASSUMED_CLASSES + 1):
            method = network.stage.method_for(classes)
            classifier = variable_shapes(method)[0].get("fc8", {})
            if set(classifier) == {"kernel"} and classifier["kernel"].shape[-1] == classes:
                continue
            raise UserError(
                "expected needs.checkpoint to name a stage whose network classifies the features of"
                f" its backbone by a linear layer fc8 without bias, as cam does, found"
                f" {network.name} with {name_of(type(theirs))}: name another one"
            )

    def run(self, ctx: Context, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Runs the stage; see `Stage`.

        Returns:
          ``classes``; ``clusters``, for each class and side the numbers of ``features``,
          ``clusters``, ``chosen`` ones and ``iterations``, their ``probabilities``, and ``start``,
          the rows from which clustering started; the settings; and ``warnings`` if there are any.

        Raises:
          UserError: the network or features are missing or damaged, or no class has features.
        """
        if ctx.process_index != 0:
            return {}
        source = ctx.source(self.split)
        names = list(source.classes)
        _, weights = read_network(inputs["checkpoint"], len(names), FEATURES)
        kernel = np.asarray(weights["params"]["fc8"]["kernel"][0, 0])
        members = _members(inputs["features"] / "features", source.ids, len(names))
        shape = (len(names), self._clusters, len(kernel))
        arrays = {side: np.zeros(shape, np.float32) for side in _SIDES}
        figures: dict[str, dict[str, Any]] = {}
        with ctx.progress(len(names), "prototypes", "classes") as progress:
            for label, name in enumerate(names):
                sides = _features(members[label], label, len(kernel))
                figures[name] = {}
                for number, side in enumerate(_SIDES):
                    chosen, figures[name][side] = self._chosen(
                        sides[number], kernel, label, side, (ctx.seed, label, number)
                    )
                    arrays[side][label, : len(chosen)] = chosen
                progress.update()
        warnings = self._warnings(ctx, figures)
        others = {n: {"backbone": t["backbone"]} for n, t in weights.items() if "backbone" in t}
        save_weights(
            ctx.stage_dir / "weights.npz", others.pop("params"), others | {"prototypes": arrays}
        )
        return {
            "classes": names,
            "clusters": figures,
            "tolerance": self.tolerance,
            "prototype": self.prototype,
            "context": list(self.context),
            **({"warnings": warnings} if warnings else {}),
        }

    @property
    def _clusters(self) -> int:
        assert isinstance(self.method, LpCam)
        return self.method.clusters

    def _chosen(
        self,
        features: Float[np.ndarray, "n d"],
        kernel: Float[np.ndarray, "d c"],
        label: int,
        side: str,
        seed: tuple[int, ...],
    ) -> tuple[Float[np.ndarray, "k d"], dict[str, Any]]:
        """Clusters the features of a class on one side, and returns the centers that are kept."""
        count = min(self._clusters, len(features))
        start = np.random.default_rng(seed).choice(len(features), count, replace=False)
        found = cosine_kmeans(features, features[start], self.tolerance, self.iterations)
        centers = found.filled()
        probability = probabilities(centers, kernel, label)
        if side == "foreground":
            kept = prototypes(probability, self.prototype)
        else:
            kept = contexts(probability, self.context)
        return centers[kept], {
            "features": len(features),
            "clusters": len(centers),
            "chosen": len(kept),
            "iterations": found.iterations,
            "probabilities": probability.tolist(),
            "start": start.tolist(),
        }

    def _warnings(self, ctx: Context, figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Tells which classes lack prototypes or context, and refuses a network without any."""
        inside = {name: one["foreground"] for name, one in figures.items()}
        empty = [name for name, one in inside.items() if not one["chosen"]]
        if len(empty) == len(figures):
            raise UserError(
                "expected maps above the threshold of needs.features, found none of any class:"
                " train the classifier for longer, or lower the threshold"
            )
        best = {name: max(one["probabilities"], default=1.0) for name, one in inside.items()}
        unlike = [f"{name} ({p:.2f})" for name, p in best.items() if p <= self.prototype]
        bare = [name for name, one in figures.items() if not one["context"]["chosen"]]
        counts = {side: sum(one[side]["chosen"] for one in figures.values()) for side in _SIDES}
        ctx.log(
            f"{counts['foreground']} prototypes and {counts['context']} contexts of"
            f" {len(figures)} classes"
            + (f"; {len(bare)} classes have no context ({first(bare)})" if bare else "")
        )
        warnings = []
        if unlike:
            warnings.append(
                f"no cluster of {len(unlike)} classes reaches the probability {self.prototype:g},"
                f" so the likeliest one is their prototype: {first(unlike)}"
            )
        if empty:
            warnings.append(
                f"{len(empty)} classes have no features, so their maps stay empty: {first(empty)}"
            )
        return [ctx.warn(warning) for warning in warnings]


def _at_inference(backbone: Backbone) -> Backbone:
    """Returns a backbone without what only its training needs."""
    return backbone.clone(bn_momentum=0.0) if hasattr(backbone, "bn_momentum") else backbone


def _members(folder: Path, ids: Sequence[str], classes: int) -> list[list[Path]]:
    """Returns, for each class, the files that have samples of it, in the order of the images."""
    check_files("file of features (.npz)", folder, ids, ".npz")
    members: list[list[Path]] = [[] for _ in range(classes)]
    for image_id in ids:
        path = folder / f"{image_id}.npz"
        for label in sorted(read_sampled_classes(path)):
            if not 0 <= label < classes:
                raise UserError(
                    f"{path}: expected classes 0 to {classes - 1}, found {label}:"
                    f" {make_again(path)}"
                )
            members[label].append(path)
    return members


def _features(
    paths: Sequence[Path], label: int, channels: int
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]]:
    """Returns the features of a class inside and outside its maps."""
    sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for path in paths:
        samples = read_samples(path)
        if samples.features.shape[1] != channels:
            raise UserError(
                f"{path}: expected features of {channels} channels, found"
                f" {samples.features.shape[1]}: {make_again(path)}"
            )
        for rows, inside in zip(sides, (True, False), strict=True):
            rows.append(samples.features[(samples.keys == label) & (samples.inside == inside)])
    none = np.zeros((0, channels), np.float32)
    inside, outside = (np.concatenate([none, *rows]) for rows in sides)
    return inside, outside
