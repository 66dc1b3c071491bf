"""A stage of a recipe, as far as a report has to know it."""

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class PlannedStage(Protocol):
    """What `wsss_jax.pipeline.graph.Node` has beside its typed settings."""

    @property
    def name(self) -> str:
        """What the recipe calls it."""
        ...

    @property
    def type(self) -> str:
        """Its type."""
        ...

    @property
    def section(self) -> dict[str, Any]:
        """Its part of the config."""
        ...

    @property
    def needs(self) -> dict[str, str]:
        """Names of stages, by the names of its inputs."""
        ...
