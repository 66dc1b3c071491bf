"""Topologies that cannot be meant are refused; the TPU compiler runs where it is installed."""

import importlib.util
import json
import os
from pathlib import Path

import jax
import pytest

from tests.accelerators.elsewhere import compiled
from wsss_jax import main
from wsss_jax.accelerators import topology
from wsss_jax.errors import UserError

LIBTPU = bool(os.environ.get("TPU_LIBRARY_PATH") or importlib.util.find_spec("libtpu"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5e-8", "expected a topology as CHIP:SIDES, such as v5e:2x4"),
        ("", "expected a topology as CHIP:SIDES"),
        ("v5e:2xx4", "expected a topology as CHIP:SIDES"),
        ("v5f:2x4", "found the chip 'v5f'; did you mean v5e or v5p?"),
        ("b200:8", "expected a topology of v4, v5e, v5p, v6e, l4, a100, h100, h200, such as"),
        ("v5e:2x4x1", "expected 2 sides above 0 for v5e"),
        ("v4:2x2", "expected 3 sides above 0 for v4"),
        ("v5e:0x4", "expected 2 sides above 0 for v5e"),
    ],
)
def test_names_that_are_no_topology(name: str, message: str):
    with pytest.raises(UserError) as refused:
        topology.topology_devices(name)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_the_chip_of_a_topology():
    names = "v5e:2x4", " V4:2x2x1", "v5p:2x2x2", "v6e:4x4"
    assert [topology.chip_of_topology(name).name for name in names] == ["v5e", "v4", "v5p", "v6e"]


def test_without_libtpu_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    def missing(**options):
        raise RuntimeError("JAX TPU support not installed; cannot generate TPU topology.")

    monkeypatch.setattr(topology.topologies, "get_topology_desc", missing)
    with pytest.raises(UserError, match=r"found none: run pip install 'jax\[tpu\]'"):
        topology.topology_devices("v5e:2x4")


def test_a_size_that_libtpu_does_not_know(monkeypatch: pytest.MonkeyPatch):
    def unknown(**options):
        assert options["chip_config_name"] == "megacore"  # Two cores of a v4 are one device.
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT:\n not divisible")

    monkeypatch.setattr(topology.topologies, "get_topology_desc", unknown)
    with pytest.raises(UserError, match=r"found 'v4:3x3x3' \(INVALID_ARGUMENT: not divisible\)"):
        topology.topology_devices("v4:3x3x3")


def test_a_topology_is_only_for_dry_runs(tmp_path: Path, capsys: pytest.CaptureFixture):
    command = ["main", "--config=cam_shapes", f"--workdir={tmp_path}/run", "--topology=v5e:2x4"]
    assert main.main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --topology only estimates: add --dry_run")
    assert error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(not LIBTPU, reason="libtpu is not installed: pip install 'jax[tpu]'")
def test_the_tpus_compiler_on_a_toy_recipe():
    names = "v5e:2x4", "v5e:4x8", "v4:2x2x1"
    done = compiled(*names)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # What libtpu says on machines without TPUs does not reach the user.
    found = json.loads(done.stdout)
    assert found["backend"] == "cpu"
    assert [found[name]["devices"] for name in names] == [8, 32, 4]
    for name in names:
        cost = found[name]
        assert cost["flops"] > 1e6 and cost["peak"] > cost["arguments"] > 0
        (reduced,) = cost["collectives"]
        assert reduced["kind"] == "all-reduce" and reduced["bytes"] > 1000
    # Two images per chip are the same work on any number of chips; only exchanges differ.
    eight, more, other = (found[name] for name in names)
    for name in ("flops", "bytes_accessed", "hbm_bytes", "peak"):
        assert more[name] == pytest.approx(eight[name], rel=0.05), name
    assert other["flops"] == pytest.approx(eight["flops"], rel=0.05)
