"""Shared fixtures: array shapes are checked while testing; the CPU is the device."""

import gc
import os
import signal
from pathlib import Path

from hypothesis import HealthCheck, settings

from tests.toys.compiler import FLAGS

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the time of tests goes into compiling programs that run once: half of it with these, which
# processes that tests start inherit.
os.environ.setdefault("XLA_FLAGS", FLAGS)

# A shell ignores Ctrl-C for what it starts in the background, and so would all processes of tests.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run, however long they take; --hypothesis-profile=default draws others.
settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")

from jaxtyping import install_import_hook  # noqa: E402

# Every function of the package is checked against its shape annotations while the tests run.
install_import_hook("wsss_jax", "beartype.beartype")

import pytest  # noqa: E402

# Most of what tracing allocates stays for long, and there is much of it to look through.
gc.set_threshold(20_000, 10, 10)


def pytest_collection_finish() -> None:
    """What was imported stays to the end."""
    gc.collect()
    gc.freeze()


REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real images (`data`) and reference values (`golden`) that are not shipped."""
    folder = Path(os.environ.get("WSSS_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}: set WSSS_SHARED to the folder that has them")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Small reference arrays that are shipped with the tests."""
    return REPOSITORY / "tests" / "golden"
