"""A plugin of pytest that prints why a test failed at once: ``pytest -p benchmarks.reasons``."""

import pytest


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Prints ``REASON TEST - MESSAGE`` for a failure."""
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        message = str(crash.message if crash else report.longrepr).strip()
        print(f"\nREASON {report.nodeid} - {' '.join(message.split())[:300]}", flush=True)
