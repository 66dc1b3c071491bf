"""The contract of evaluators, which measure a network at regular steps while it trains."""

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar

from jaxtyping import PyTree

from wsss_jax.data.source import Source
from wsss_jax.errors import UserError
from wsss_jax.methods.base import Method
from wsss_jax.settings import Settings
from wsss_jax.settings.limits import check_limits

Evaluate = Callable[[PyTree], dict[str, float]]
"""A function from the variables of a network (``params`` and the others) to figures by name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator(Settings, abc.ABC):
    """Measures the network that inference would use, while it trains.

    An evaluator is one module of this package, or any module that a recipe names with dots, with
    one subclass, whose fields are its settings.

    Attributes:
      every: the number of steps between two evaluations, of which one follows the last step; 0 for
        no evaluations.
      split: the split to evaluate on.
      images: the number of its first images that are evaluated; 0 for all.
      keep_best: whether to also keep the weights with the best figure, in ``weights_best.npz``.
        Their scores on this split are then scores of weights that were chosen on it.
    """

    room: ClassVar[str] = "wsss_jax.training.evaluators"

    figure: ClassVar[str]
    """The name of the figure that `keep_best` compares; larger is better."""

    every: int = 0
    split: str = "val"
    images: int = 0
    keep_best: bool = False

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: a number is negative, or the best weights are kept without evaluations.
        """
        super().__post_init__()
        check_limits(self, every=(0, math.inf), images=(0, math.inf))
        if self.keep_best and not self.every:
            raise UserError("expected every above 0 with keep_best, found 0: set every")

    def count(self, source: Source) -> int:
        """Returns the number of the split's images that are evaluated."""
        return min(self.images, len(source)) if self.images else len(source)

    @abc.abstractmethod
    def check(self, method: Method) -> None:
        """Checks that the method can be evaluated.

        Raises:
          UserError: the method does not predict what is evaluated.
        """

    @abc.abstractmethod
    def check_source(self, source: Source) -> None:
        """Checks that the data has what the evaluation needs.

        Raises:
          UserError: something is missing, such as the ground truth of an image.
        """

    @abc.abstractmethod
    def prepare(self, method: Method, source: Source) -> Evaluate:
        """Returns the function that evaluates; it is called once, so nothing is compiled twice.

        If there are several processes, each calls the function with its own copy of the variables
        and gets the same figures.
        """
