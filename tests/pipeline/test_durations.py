"""What is known of how long stages take."""

from pathlib import Path

import pytest

from wsss_jax.pipeline import durations, graph
from wsss_jax.pipeline.config import load_config
from wsss_jax.pipeline.process import cache_folder


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[graph.Node, ...]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return graph.stages(load_config("cam_shapes"))


def test_seconds_follow_the_number_of_images(nodes: tuple[graph.Node, ...]):
    train, cams, *_ = nodes
    assert durations.expected(nodes, {node.name: 10 for node in nodes}) == {}
    durations.remember(train, 100, 50.0)
    durations.remember(cams, 40, 8.0)
    images = {train.name: 120, cams.name: 30}
    assert durations.expected((train, cams), images) == pytest.approx({"train": 60, "cam_train": 6})
    # Starting and compiling take their own time, so far fewer or more images tell nothing.
    for few_or_many in (50, 200, 100_000):
        assert durations.expected((train,), {train.name: few_or_many}) == {}
    durations.remember(train, 100, 20.0)  # the last one counts
    assert durations.expected((train,), {train.name: 100}) == {"train": 20.0}


@pytest.mark.parametrize(
    "content", ["", "[]", '{"a": 3}', '{"a": [1, "x"]}', "{", '{"a": [1e999, 1]}']
)
def test_a_damaged_file_is_made_anew(nodes: tuple[graph.Node, ...], content: str):
    cache_folder().mkdir(parents=True)
    (cache_folder() / "durations.json").write_text(content)
    assert durations.expected(nodes[:1], {"train": 10}) == {}
    durations.remember(nodes[0], 10, 5.0)
    assert durations.expected(nodes[:1], {"train": 10}) == {"train": 5.0}


def test_numbers_that_are_too_large_are_made_anew(nodes: tuple[graph.Node, ...]):
    durations.remember(nodes[0], 10, 5.0)
    path = cache_folder() / "durations.json"
    path.write_text(path.read_text().replace("10,", "1" + "0" * 400 + ","))
    assert durations.expected(nodes[:1], {"train": 10}) == {}


def test_nothing_happens_where_nothing_can_be_written(
    nodes: tuple[graph.Node, ...], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    durations.remember(nodes[0], 10, 5.0)
    assert durations.expected(nodes[:1], {"train": 10}) == {}
