"""What an evaluator is: figures of the network in training, every so many steps."""

import abc
import dataclasses
from collections.abc import Callable
from typing import ClassVar

from jaxtyping import PyTree

from wsss_jax.data.source import Source
from wsss_jax.errors import UserError
from wsss_jax.methods.base import Method
from wsss_jax.settings import Settings

Evaluate = Callable[[PyTree], dict[str, float]]
"""Figures by name of a network's variables (``params`` and the other collections)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator(Settings, abc.ABC):
    """Measures the network that inference would use, while it trains.

    An evaluator is one module of this package (or any module: recipes take dotted names) with one
    subclass; its fields are its settings.

    Attributes:
      every: steps between two evaluations; 0 for none. The last step is always one of them.
      split: the images to evaluate on.
      images: how many of them, from the beginning of the split; 0 for all.
      keep_best: keep the weights with the best figure in ``weights_best.npz``, beside those of the
        last step. Scores on this split are then scores of weights that were chosen on it.
    """

    room: ClassVar[str] = "wsss_jax.training.evaluators"

    figure: ClassVar[str]
    """Name of the figure that `keep_best` compares; larger is better."""

    every: int = 0
    split: str = "val"
    images: int = 0
    keep_best: bool = False

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: a number is negative, or nothing is evaluated from which the best is kept.
        """
        for name in ("every", "images"):
            if getattr(self, name) < 0:
                raise UserError(f"expected {name} of 0 or more, found {getattr(self, name)}")
        if self.keep_best and not self.every:
            raise UserError("expected every above 0 with keep_best, found 0: set every")

    def count(self, source: Source) -> int:
        """How many of the split's images are evaluated."""
        return min(self.images, len(source)) if self.images else len(source)

    @abc.abstractmethod
    def check(self, method: Method) -> None:
        """Refuses a method that cannot be evaluated.

        Raises:
          UserError: the method does not predict what is evaluated.
        """

    @abc.abstractmethod
    def check_source(self, source: Source) -> None:
        """Refuses data that lacks what the evaluation needs.

        Raises:
          UserError: an image has no ground truth, say.
        """

    @abc.abstractmethod
    def prepare(self, method: Method, source: Source) -> Evaluate:
        """The function that evaluates; called once, so that nothing is compiled twice.

        With several processes each of them calls the function, with its own copy of the variables,
        and gets the same figures.
        """
