"""Weakly supervised semantic segmentation in JAX: image-level labels in, pixel masks out.

`load` opens a finished run, `crf` refines probabilities and `score` compares masks; see
`wsss_jax.api`.
"""

TYPE_CHECKING = False  # that of `typing`, whose import would delay `interrupts.begin`
if TYPE_CHECKING:
    from typing import Any

    from wsss_jax.api import Cams, Run, Segmentation, crf, load, score

__version__ = "0.2.0"
__all__ = ["Cams", "Run", "Segmentation", "__version__", "crf", "load", "score"]


def __getattr__(name: str) -> "Any":
    # Worker processes and command lines import this package without JAX, which the interface needs.
    if name in __all__:
        from importlib import import_module

        return getattr(import_module("wsss_jax.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
