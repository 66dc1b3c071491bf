"""Makes the table of a comparison as Markdown and JSON, with remarks."""

from collections.abc import Sequence
from typing import Any

from wsss_jax.comparison.trials import SPLITS, Comparison, Entry, Spread, Trial
from wsss_jax.report import wording


def plus_minus(spread: Spread | None) -> str:
    """Returns ``60.4 ± 1.6``, in percent, or ``60.4`` for one seed."""
    if spread is None:
        return "–"
    return " ".join(filter(None, (wording.percent(spread.mean), deviation(spread))))


def deviation(spread: Spread) -> str:
    """Returns ``± 1.6``, the standard deviation in percent, or "" for one seed."""
    return "" if spread.std is None else f"± {wording.percent(spread.std)}"


def signed(gain: float) -> str:
    """Returns a difference in percentage points, such as ``+2.1``."""
    return f"{'+' if gain >= 0 else '−'}{abs(100 * gain):.1f}"


def rate(per_second: float | None) -> str:
    """Returns the number of images per second, such as ``50.0``."""
    return "–" if per_second is None else f"{per_second:.1f}"


def gibibytes(count: int | None) -> str:
    """Returns a size such as ``1.6 GiB``."""
    return "–" if count is None else f"{count / 2**30:.1f} GiB"


def remarks(comparison: Comparison) -> list[str]:
    """Returns sentences that explain the table."""
    first = next((e.label for e in comparison.entries if e.recipe == comparison.baseline), "")
    told = ["In percent: mean ± sample standard deviation over the seeds."]
    if first and len(comparison.entries) > 1 and len(comparison.seeds) > 1:
        told.append(f"▲: above {first} by more than the standard deviations of both.")
    if len(comparison.seeds) == 1:
        told.append("A single seed has no spread: differences may be chance.")
    for split in SPLITS:
        told += sorted(_choices(comparison, split))
    scored = [e for entry in comparison.entries for e in entry.trials[0].scored.values()]
    protocols = wording.protocols(scored)
    if len(protocols) > 1:
        told.append(f"The recipes differ in their protocol ({', '.join(protocols)})!")
    told += wording.protocol_sentences(scored)
    return [sentence for sentence in told if sentence]


def _choices(comparison: Comparison, split: str) -> set[str]:
    """Returns sentences that say how the thresholds of the maps of `split` were chosen."""
    scored = [e.trials[0].scored[split] for e in comparison.entries if e.curve(split) is not None]
    sentences = filter(None, map(wording.choice_sentence, scored))
    return {f"{split.capitalize()}: {s[0].lower()}{s[1:]}" for s in sentences}


def markdown(comparison: Comparison) -> str:
    """Returns the table, a table by seed, and the missing runs."""
    head = ["method", "recipe", "seeds", "train mIoU", "val mIoU"]
    head += [f"{split} {key}" for split in SPLITS for key in ("precision", "recall")]
    head += ["images seen", "images/s", "peak memory"]
    rows = []
    for entry in comparison.entries:
        bound = " (true masks)" if entry.supervised else ""
        row = [entry.label + bound, f"`{entry.recipe}`", str(len(entry.trials))]
        for split in SPLITS:
            mark = " ▲" if comparison.better(entry, split) else ""
            row.append(plus_minus(entry.score(split)) + mark)
        row += [
            plus_minus(entry.score(split, key))
            for split in SPLITS
            for key in ("precision", "recall")
        ]
        row += [f"{entry.trials[0].images_seen:,}", rate(entry.images_per_second)]
        rows.append([*row, gibibytes(entry.peak_memory)])
    seeds = [["method", "seed", "train mIoU", "val mIoU", "threshold", "training"]]
    for entry in comparison.entries:
        for trial in entry.trials:
            scores = [wording.percent(trial.score(split)) for split in SPLITS]
            seeds.append([entry.label, str(trial.seed), *scores, threshold(trial), time(trial)])
    lines = [*_grid([head, *rows]), "", *remarks(comparison), "", *_grid(seeds)]
    if chained := chains(comparison):
        grid = [["method", "step", "stage", "split", "seeds", "mIoU"]]
        for entry in chained:
            for step in entry.steps():
                one = step.evaluation
                cells = [entry.label, wording.kind(one), f"`{one.stage.name}`", one.split]
                grid.append([*cells, str(len(step.miou.values)), plus_minus(step.miou)])
        lines += ["", "All steps that are scored:", "", *_grid(grid)]
    lines += [""] if comparison.missing else []
    lines += [f"Missing: {r}, seed {s}: {why}" for r, s, why in comparison.missing]
    return "\n".join(lines) + "\n"


def chains(comparison: Comparison) -> list[Entry]:
    """Returns the entries that score more than what is compared, such as a network after maps."""
    return [e for e in comparison.entries if len(e.steps()) > len(e.trials[0].scored)]


def threshold(trial: Trial) -> str:
    """Returns the threshold of the maps, or those of both splits if they differ."""
    found = [trial.score(split, "threshold") for split in SPLITS]
    shown = dict.fromkeys(f"{value:.2f}" for value in found if value is not None)
    return " / ".join(shown) or "–"


def time(trial: Trial) -> str:
    """Returns the duration of all trainings of the trial."""
    return "–" if trial.seconds is None else " ".join(wording.duration(trial.seconds))


def _grid(rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (cells[0], ["---"] * len(cells[0]), *cells[1:])]


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Returns all figures for JSON; scores are fractions 0…1."""
    return {
        "baseline": comparison.baseline,
        "seeds": list(comparison.seeds),
        "rows": [_row(comparison, entry) for entry in comparison.entries],
        "missing": [
            {"recipe": recipe, "seed": seed, "reason": reason}
            for recipe, seed, reason in comparison.missing
        ],
    }


def _row(comparison: Comparison, entry: Entry) -> dict[str, Any]:
    run = entry.trials[0].run
    scores: dict[str, Any] = {}
    for split in SPLITS:
        evaluation = entry.trials[0].scored.get(split)
        if evaluation is None:
            continue
        keys = ("miou", "precision", "recall", "pixel_accuracy", "threshold")
        curve = entry.curve(split)
        scores[split] = {
            **{key: _spread(entry.score(split, key)) for key in keys},
            "stage": evaluation.stage.name,
            "images": evaluation.stage.metrics.get("images"),
            "protocol": evaluation.stage.metrics.get("protocol"),
            "gain": comparison.gain(entry, split),
            "more_than_std": comparison.better(entry, split),
            "thresholds": None if curve is None else curve[0],
            "miou_curve": None if curve is None else curve[1],
        }
    return {
        "recipe": entry.recipe,
        "label": entry.label,
        "method": run.method,
        "backbone": run.backbone,
        "supervision": "masks" if entry.supervised else "labels",
        "seeds": [trial.seed for trial in entry.trials],
        "scores": scores,
        "steps": [
            {
                "stage": step.evaluation.stage.name,
                "scored": step.evaluation.scored.name,
                "split": step.evaluation.split,
                "miou": _spread(step.miou),
            }
            for step in entry.steps()
        ],
        "training_images": entry.trials[0].images_seen,
        "training_seconds": _spread(entry.spread(lambda trial: trial.seconds)),
        "images_per_second": _spread(entry.spread(lambda trial: trial.images_per_second)),
        "peak_memory": entry.peak_memory,
        "memory": [trial.memory for trial in entry.trials],
    }


def _spread(spread: Spread | None) -> dict[str, Any] | None:
    if spread is None:
        return None
    return {"mean": spread.mean, "std": spread.std, "values": list(spread.values)}
