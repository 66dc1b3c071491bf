"""Stages from sections of a recipe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsss_jax.settings import name_of
from wsss_jax.stages.base import Context, Stage


def stage_of(kind: type[Stage], section: Any) -> Any:
    """A stage with the settings of `section`, which need not repeat its type."""
    return Stage.from_config({"type": name_of(kind), **section})


def run_section(
    kind: type[Stage], ctx: Context, section: Any, inputs: Mapping[str, Path]
) -> dict[str, Any]:
    """Runs the stage of `stage_of` and returns its figures."""
    return stage_of(kind, section).run(ctx, inputs)
