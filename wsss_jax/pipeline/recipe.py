"""The general settings of a recipe, outside the sections of its stages."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from wsss_jax.data.sets.base import DataSettings
from wsss_jax.errors import UserError, nearest
from wsss_jax.scoring.confusion import Protocol
from wsss_jax.settings import Settings, settings_of
from wsss_jax.stages.base import Stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(Settings):
    """The general settings of a recipe.

    Attributes:
      name: the name of the recipe in reports and comparisons.
      seed: the seed of everything random: weights, batches and samples of images.
      data: the data set.
      stages: the names of the stages to run, each of which has its own section.
      init_weights: a value that training stages may share as their ``init_weights``.
      protocol: a value that evaluations may share as their ``protocol``.
    """

    name: str = ""
    seed: int = 0
    data: DataSettings
    stages: tuple[str, ...]
    init_weights: str = ""
    protocol: Protocol = "strict"

    def __post_init__(self) -> None:
        """Checks the seed.

        Raises:
          UserError: random generators do not take it.
        """
        super().__post_init__()
        if not 0 <= self.seed < 1 << 31:
            raise UserError(
                f"expected a seed of 0 to {(1 << 31) - 1}, found {self.seed}: change it"
            )


def general_settings(config: ConfigDict) -> Recipe:
    """Reads the general settings of a recipe, without the sections of stages.

    A section with a ``type`` may stay even if its stage is not listed.

    Raises:
      UserError: a key is neither a setting nor a stage (the nearest one is named), a value has the
        wrong type, or there are no stages.
    """
    settings = settings_of(Recipe)
    listed: Any = config.get("stages", ())
    names = tuple(map(str, listed)) if isinstance(listed, tuple | list) else ()
    for key, value in config.items():
        is_stage = key in names or (isinstance(value, ConfigDict) and Stage.key in value)
        if key not in settings and not is_stage:
            near = nearest(key, (*settings, *names))
            raise UserError(
                f"{key} is neither a setting of the recipe nor a stage{near or '; remove it'}"
            )
    if "stages" in config and not names:
        raise UserError("expected the config to name its stages: stages = ('train', ...)")
    return Recipe.from_config({key: config[key] for key in settings if key in config})
