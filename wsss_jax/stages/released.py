"""The stage that takes a published network over, in place of a training stage."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsss_jax.errors import UserError
from wsss_jax.settings import name_of
from wsss_jax.stages.base import Context, Needs, SplitSize
from wsss_jax.stages.network import NetworkStage
from wsss_jax.training.optimizer import parameter_count
from wsss_jax.weights import catalogue
from wsss_jax.weights.import_weights import check_network, import_network
from wsss_jax.weights.npz import save_weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Released(NetworkStage):
    """Takes a published network over as a whole, with its heads: ``weights.npz``.

    Other stages use it as they use a training stage. Every array of the file must have its place in
    the network, and every variable of the network an array.

    Attributes:
      split: the split whose classes are those of the network.
      method: the method to which the network belongs, with the settings of its authors.
      weights: the network, as a file, a folder or a name of the catalogue.
    """

    split: str = "train"
    weights: str

    def files(self) -> dict[str, str]:
        """The file of weights; see `Stage`."""
        return {"weights": self.weights}

    def locate(self, setting: str) -> Path:
        """Finds weights that are named by a path or as in the catalogue; see `Stage`."""
        return catalogue.resolve(catalogue.divided(self.files()[setting])[0])

    def check(self, needs: Needs) -> None:
        """Refuses needs, and no or unknown weights; see `Stage`."""
        super().check(needs)
        if needs:
            raise UserError(
                f"expected no needs of a released network, found needs.{min(needs)}: remove it"
            )
        if not self.weights:
            raise UserError("expected weights of a released network, found none: name a file")
        catalogue.check(self.weights, self.method.backbone)

    def check_files(self, classes: int | None) -> None:
        """Refuses weights of another network; see `Stage`."""
        if classes is not None:
            _, part = catalogue.divided(self.weights)
            check_network(self.locate("weights"), self.method_for(classes), part)

    def details(self, sizes: Mapping[str, SplitSize]) -> list[str]:
        """The method and its weights; see `Stage`."""
        del sizes
        backbone = name_of(type(self.method.backbone))
        return [
            f"method       {name_of(type(self.method))}, backbone {backbone}",
            f"weights      {catalogue.whereabouts(self.weights)}",
        ]

    def run(self, ctx: Context, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Runs the stage; see `Stage`.

        Returns:
          ``parameters``, their number; ``initial_weights``, what the file was, as in a training
          stage; and ``classes``.

        Raises:
          UserError: the file is missing or damaged, or holds another network.
        """
        del inputs
        classes = ctx.source(self.split).classes
        method, path = self.method_for(len(classes)), self.locate("weights")
        starts: list[dict[str, Any]] = []
        _, part = catalogue.divided(self.weights)
        params, variables = import_network(path, method, ctx.log, starts.append, part)
        if ctx.process_index == 0:
            save_weights(ctx.stage_dir / "weights.npz", params, variables)
        return {
            "parameters": parameter_count(params),
            "initial_weights": starts,
            "classes": list(classes),
        }
