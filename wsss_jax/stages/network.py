"""What stages have in common that leave a network for others, trained or published."""

import dataclasses
from typing import ClassVar

from wsss_jax.methods.base import Method
from wsss_jax.methods.checks import check_method
from wsss_jax.stages.base import Context, Stage

ASSUMED_CLASSES = 20
"""The number of VOC's classes, where the data is not at hand."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkStage(Stage):
    """A stage that leaves the network of a method: ``weights.npz``, and its settings.

    Attributes:
      split: a split of the data, whose classes are those of the network.
      method: the method.
    """

    outputs: ClassVar[tuple[str, ...]] = ("weights.npz",)

    split: str
    method: Method

    def predictions(self) -> tuple[str, ...]:
        """Those of its method; see `Stage`."""
        return self.method_for(0).outputs

    def check_data(self, ctx: Context) -> None:
        """Checks the method for the classes of the data; see `Stage`."""
        check_method(self.method_for(len(ctx.source(self.split).classes)))

    def method_for(self, num_classes: int) -> Method:
        """Returns the method for data of so many foreground classes."""
        return dataclasses.replace(self.method, num_classes=num_classes)
