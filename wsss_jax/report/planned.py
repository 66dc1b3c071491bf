"""The part of a recipe's stage that reports use."""

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class PlannedStage(Protocol):
    """The properties of `wsss_jax.pipeline.graph.Node` besides its typed settings."""

    @property
    def name(self) -> str:
        """The name of the stage in the recipe."""
        ...

    @property
    def type(self) -> str:
        """The type of the stage."""
        ...

    @property
    def section(self) -> dict[str, Any]:
        """The section of the stage in the config."""
        ...

    @property
    def needs(self) -> dict[str, str]:
        """The names of the stages that it needs, by the names of its inputs."""
        ...
