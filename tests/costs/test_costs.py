"""Programs cost what is recorded, a training compiles and reads what it must, and no more."""

import json
from pathlib import Path

import pytest

from tests.costs import record


def skip_with_other_compilers(target: str) -> None:
    """Skips a test whose costs were recorded with versions that are not installed."""
    recorded, installed = record.read()["versions"].get(target), record.versions(target)
    if recorded != installed:
        names = " and ".join(record.TARGETS[target])
        pytest.skip(
            f"costs on {target} were recorded with {recorded}, found {installed or f'not {names}'}"
        )


def check(target: str, found: record.Figures, *methods: str) -> None:
    """Fails if a figure is not as recorded, or is better; of these methods, or of all."""
    known = record.read()["costs"][target]
    if methods:  # The other figures are of runs.
        known = {k: v for k, v in known.items() if k.partition(", ")[0] in methods or ", " not in k}
    lines = list(record.differences(known, found))
    command = 'make costs REASON="..."'
    assert not lines, "\n".join([*lines, f"To record figures with their reason: {command}"])


FEW = ("irnet", "pss", "seam", "segmentation")
"""The methods of the quick tests: with most losses, an EMA teacher, batch norm, and heads."""


@pytest.fixture(scope="module")
def on_cpu() -> dict[str, dict[str, float]]:
    return record.measured("cpu", *FEW)


def test_nothing_but_figures_and_maps_is_read_in_a_training_and_no_step_is_waited_for(
    on_cpu: dict[str, dict[str, float]],
):
    for run in ("toy training", "toy training from the cache"):
        assert on_cpu[run]["other arrays read"] == on_cpu[run]["waits"] == 0
        assert on_cpu[run]["figures read"] == 3 * 9 and on_cpu[run]["maps read"] == 3


def test_a_second_training_compiles_nothing(on_cpu: dict[str, dict[str, float]]):
    first, second = on_cpu["toy training"], on_cpu["toy training from the cache"]
    assert second["compiled"] == 0 and second["from the cache"] == first["compiled"] > 0


def test_steps_reuse_the_memory_of_the_whole_state(on_cpu: dict[str, dict[str, float]]):
    check_reuse(on_cpu, len(FEW))


def check_reuse(found: record.Figures, count: int) -> None:
    steps = [one for name, one in found.items() if name.endswith(", training step")]
    assert len(steps) >= count and all(one["donated, not reused"] == 0 for one in steps)


def test_costs_are_those_recorded(on_cpu: dict[str, dict[str, float]]):
    skip_with_other_compilers("cpu")
    check("cpu", on_cpu, *FEW)


@pytest.mark.slow
def test_costs_of_all_methods_are_those_recorded():
    found = record.measured("cpu")
    check_reuse(found, 8)
    skip_with_other_compilers("cpu")
    check("cpu", found)


@pytest.mark.slow
def test_costs_on_tpus_are_those_recorded():
    skip_with_other_compilers("tpu")
    check("tpu", record.measured("tpu"))


KNOWN = {"step": {"flops": 1000.0, "bytes": 1000.0, "all-reduce": 2}}


@pytest.mark.parametrize(
    ("figure", "value", "says"),
    [
        ("flops", 1004.0, ""),
        ("flops", 1006.0, "step: flops was 1,000, is 1,006 (+0.6%), worse: mend it, or record it"),
        ("flops", 990.0, "step: flops was 1,000, is 990 (-1.0%), better: record it"),
        ("bytes", 1029.0, ""),
        ("bytes", 1031.0, "step: bytes was 1,000, is 1,031 (+3.1%), worse"),
        ("bytes", 960.0, "better: record it"),
        ("all-reduce", 3, "step: all-reduce was 2, is 3 (+50.0%), worse"),
        ("all-gather", 1, "step: all-gather is new, record it"),
    ],
)
def test_differences_beyond_the_tolerances_are_told(figure: str, value: float, says: str):
    found = list(record.differences(KNOWN, {"step": {**KNOWN["step"], figure: value}}))
    assert len(found) == bool(says)
    assert all(says in line for line in found)


def test_costs_that_are_gone_are_told():
    assert list(record.differences(KNOWN, {})) == [
        f"step: {name} is no longer measured, record it"
        for name in ("all-reduce", "bytes", "flops")
    ]


def test_a_new_value_is_recorded_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(record, "RECORD", tmp_path / "costs.json")
    empty = {"versions": {}, "costs": {}, "changes": []}
    first = record.update(empty, "cpu", KNOWN, "The first values.")
    record.write(first)
    assert record.read() == first and first["costs"]["cpu"] == KNOWN
    assert record.update(first, "cpu", {"step": {**KNOWN["step"], "bytes": 1010.0}}, "No.") == first
    less = {"step": {**KNOWN["step"], "bytes": 500.0}}
    second = record.update(first, "cpu", less, "Fewer bytes.")
    record.write(second)
    assert record.read()["costs"] == {"cpu": less}
    assert second["changes"][0] == first["changes"][0]
    assert second["changes"][1]["changed"] == {"step: bytes": [1000.0, 500.0]}
    assert second["changes"][1]["reason"] == "Fewer bytes."
    lines = (tmp_path / "costs.json").read_text().splitlines()
    assert sum('"step": {' in line for line in lines) == 1
    assert json.loads((tmp_path / "costs.json").read_text()) == second
