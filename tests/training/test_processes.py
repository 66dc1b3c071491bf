"""Two processes train together: the same batches, one signal for both, and they resume."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.toys.toy_training import train
from wsss_jax.training.metrics import read_metrics

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 12
PROGRAM = """
import json, signal, sys
from pathlib import Path

import jax
import numpy as np

folder, port, index, at = Path(sys.argv[1]), *map(int, sys.argv[2:])
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=index)

from tests.toys.toy_training import train
from wsss_jax.errors import Interrupted

found = {"processes": jax.process_count(), "said": [], "stopped": ""}
stop = {at: lambda: signal.raise_signal(signal.SIGTERM)} if at else {}
try:
    state, _ = train(folder, %d, at=stop, checkpoint_every=100, log=found["said"].append)
    found["head"] = np.asarray(state.params["head"]).tolist()
except Interrupted as stopped:
    found["stopped"] = str(stopped)
print(json.dumps(found))
"""


def run_two(folder: Path, signal_at: int) -> list[dict[str, Any]]:
    """What both processes found; the second one gets SIGTERM after step `signal_at`, if not 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [
        subprocess.Popen(
            [
                *(sys.executable, "-c", PROGRAM % STEPS, str(folder), str(port), str(index)),
                str(signal_at * index),
            ],
            cwd=REPOSITORY,
            env=dict(os.environ, JAX_PLATFORMS="cpu", PYTHONPATH=str(REPOSITORY)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    results = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    return [json.loads(out.splitlines()[-1]) for out, _ in results]


@pytest.mark.slow
def test_a_signal_to_one_stops_both_after_the_same_step_and_they_go_on(tmp_path: Path):
    alone, _ = train(tmp_path / "alone", STEPS)
    stopped = run_two(tmp_path / "two", signal_at=5)
    # It is noticed after step 6, and all answers are known when two later steps are dispatched.
    says = "stopped by a signal after step 8; everything is saved"
    assert [one["stopped"] for one in stopped] == [says, says]
    assert {one["processes"] for one in stopped} == {2}
    resumed = run_two(tmp_path / "two", signal_at=0)
    for one in resumed:
        assert one["said"][0] == f"resuming after step 8 of {STEPS}"
        np.testing.assert_allclose(one["head"], alone.params["head"], rtol=1e-5)
    rows, expected = read_metrics(tmp_path / "two"), read_metrics(tmp_path / "alone")
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    np.testing.assert_allclose(
        [row["loss"] for row in rows], [row["loss"] for row in expected], rtol=1e-5
    )
