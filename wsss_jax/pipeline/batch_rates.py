"""Lets the learning rates of a recipe follow the batch sizes of the command line."""

from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from wsss_jax import console
from wsss_jax.pipeline.overrides import overridden

_POWERS = {"sgd": 1.0, "adamw": 0.5}


def batch_sizes(config: ConfigDict) -> dict[str, int]:
    """Returns the batch size of every section that has one and an optimizer, by name."""
    sections: Any = config
    return {
        name: sections[name].batch_size
        for name in config
        if isinstance(sections[name], ConfigDict)
        and isinstance(sections[name].get("optimizer"), ConfigDict)
        and isinstance(sections[name].get("batch_size"), int)
    }


def follow_batches(config: ConfigDict, before: Mapping[str, int], overrides: Iterable[str]) -> None:
    """Scales the learning rates of stages whose batch size differs from the recipe's.

    The rate of SGD changes in proportion to the batch size (Goyal et al.: Accurate, Large Minibatch
    SGD, 2017), and that of AdamW with its square root (Malladi et al.: On the SDEs and Scaling
    Rules for Adaptive Gradient Algorithms, NeurIPS 2022). Rates that the command line sets are
    kept. A note says what was changed.

    Args:
      config: the recipe, after its values were replaced by those of the command line.
      before: its batch sizes before that, from `batch_sizes`.
      overrides: the settings of the command line; see `replace`.
    """
    given = overridden(overrides)
    sections: Any = config
    for name, size in batch_sizes(config).items():
        old = before.get(name, size)
        key = f"{name}.optimizer"
        if size == old or size < 1 or old < 1 or {key, f"{key}.lr"} & given:
            continue
        optimizer = sections[name].optimizer
        power = _POWERS.get(optimizer.get("name", ""), 1.0)
        rate = optimizer.lr
        factor = (size / old) ** power
        with optimizer.unlocked():
            optimizer.lr = rate * factor
            optimizer.end_value = optimizer.end_value * factor
        root = "" if power == 1 else " (by the root)"
        console.note(
            f"{key}.lr is {optimizer.lr:g} in place of the recipe's {rate:g}, because it"
            f" follows {name}.batch_size, which is {size} in place of {old}{root}:"
            f" --config.{key}.lr sets another rate"
        )
