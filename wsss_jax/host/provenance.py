"""The versions of the program and its libraries, and its revision, for the record of a result."""

import contextlib
import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path

_PACKAGES = ("jax", "jaxlib", "flax", "grain", "numpy", "optax", "orbax-checkpoint")


def versions() -> dict[str, str]:
    """Returns the versions of the program, of Python and of the libraries that compute."""
    import wsss_jax

    found = {"wsss_jax": wsss_jax.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@functools.cache
def git_revision() -> str:
    """Returns the commit of the checkout, with ``+`` if files differ; empty without a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        )
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
