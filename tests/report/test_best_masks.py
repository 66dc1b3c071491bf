"""The best masks of a run, and the command that makes more of them."""

from pathlib import Path
from typing import Any

from tests.toys.made_up_run import make_run
from wsss_jax.files import read_json, write_json
from wsss_jax.pipeline import graph
from wsss_jax.report.best_masks import best_masks, next_command
from wsss_jax.report.collect import Run, collect
from wsss_jax.stages.base import Stage


def run_of(config: Any, workdir: Path) -> Run:
    return collect(graph.stages(config), config, workdir, "report")


def test_the_best_is_scored_highest(tmp_path: Path):
    config = make_run(tmp_path).config
    (only,) = best_masks(run_of(config, tmp_path))
    miou = read_json(tmp_path / "eval_masks/metrics.json")["miou"]
    assert only.note == f"masks, {100 * miou:.1f} % mIoU, threshold 0.20"
    assert only.stage.folder == tmp_path / "masks" and only.split == "train"

    # A network's masks of the same images are better, then worse; those of val are not scored.
    network = {"type": "predict", "needs": {"checkpoint": "seg"}, "split": "train"}
    config.seg = config.train.copy_and_resolve_references()
    config.better, config.of_val = network, {**network, "split": "val"}
    scored = {"type": "evaluate", "needs": {"pred": "better"}, "split": "train"}
    config.eval_better = scored
    config.stages = (*config.stages[:-1], "seg", "better", "eval_better", "of_val", "report")
    assert next_command(run_of(config, tmp_path), tmp_path) == ""
    for name in ("better", "of_val"):
        (tmp_path / name / "masks").mkdir(parents=True)
        write_json(tmp_path / name / "config.json", config[name].to_dict())
        write_json(tmp_path / name / "metrics.json", {"images": 8})
    for score, best in ((0.9, "better"), (0.1, "masks")):
        (tmp_path / "eval_better").mkdir(exist_ok=True)
        write_json(tmp_path / "eval_better/config.json", scored)
        write_json(tmp_path / "eval_better/metrics.json", {"miou": score, "split": "train"})
        of_train, of_val = best_masks(run_of(config, tmp_path))
        assert of_train.stage.name == best and of_train.miou == max(score, miou)
        other = "masks" if best == "better" else "better"
        assert of_train.others == ((other, min(score, miou)),)
        assert of_val.note == "of_val, the last ones; none are scored"
    command = next_command(run_of(config, tmp_path), tmp_path / "my run")
    assert f"--workdir '{tmp_path / 'my run'}' PHOTOS --out RESULT" in command


def test_the_report_says_so(tmp_path: Path):
    context = make_run(tmp_path)
    stage = Stage.from_config(Stage.defaults("report", explorer_images=0), "report")
    (tmp_path / "report").mkdir(exist_ok=True)
    stage.run(context, {})
    page = (tmp_path / "report.html").read_text()
    assert "<strong>Best masks of train:</strong> masks, " in page
    assert "in <code>masks/masks</code>" in page and "wsss_jax.predict" not in page
