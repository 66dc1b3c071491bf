"""Runs the evaluators of a training run when they are due, and keeps the best weights."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree

from wsss_jax.data.source import Source
from wsss_jax.files import write_json
from wsss_jax.methods.base import Method
from wsss_jax.records import check_fields, read_record
from wsss_jax.training.evaluators.base import Evaluate, Evaluator
from wsss_jax.training.metrics import MetricWriter, read_metrics
from wsss_jax.types import TrainState
from wsss_jax.weights.npz import save_weights

BEST_WEIGHTS = "weights_best.npz"
_BEST = "weights_best.json"


class Evaluations:
    """The evaluators of a training run.

    Figures go to ``metrics.jsonl`` and TensorBoard as ``NAME/FIGURE``. The best weights are kept in
    ``weights_best.npz``, and ``weights_best.json`` says which they are.

    Args:
      evaluators: the evaluators by name; those whose `every` is 0 are left out.
      method: the method that is trained.
      source: a function that returns the data of a split.
      folder: the folder of the training stage.
    """

    def __init__(
        self,
        evaluators: Mapping[str, Evaluator],
        method: Method,
        source: Callable[[str], Source],
        folder: Path,
    ):
        self._evaluators = {name: one for name, one in evaluators.items() if one.every}
        self._method, self._folder = method, folder
        self._sources = {name: source(one.split) for name, one in self._evaluators.items()}
        self._evaluate: dict[str, Evaluate] = {
            name: one.prepare(method, self._sources[name]) for name, one in self._evaluators.items()
        }
        self._found: dict[str, list[dict[str, Any]]] = {name: [] for name in self._evaluators}
        self._best: dict[str, Any] = {}

    def resume(self, start: int) -> None:
        """Reads what was found up to step `start`, after which the run resumes."""
        for name, found in self._found.items():
            prefix = f"{name}/"
            for row in read_metrics(self._folder, last_step=start):
                figures = {k.removeprefix(prefix): row[k] for k in row if k.startswith(prefix)}
                if figures:
                    found.append({"step": row["step"], **figures})
        path = self._folder / _BEST
        if path.exists():
            remedy = f"delete it, and the training keeps the best weights after step {start}"
            best = read_record(path, {"step": int, "evaluator": str}, remedy)
            # Weights of a later step belong to a part of the run that will be repeated.
            evaluator = self._evaluators.get(best["evaluator"])
            if best["step"] <= start and evaluator is not None:
                check_fields(path, best, {evaluator.figure: float}, remedy)
                self._best = best
        if not self._best and jax.process_index() == 0:
            for name in (_BEST, BEST_WEIGHTS):
                (self._folder / name).unlink(missing_ok=True)

    def due(self, step: int, last: bool) -> list[str]:
        """Returns the names of the evaluators that are due after the step."""
        return [n for n, one in self._evaluators.items() if last or step % one.every == 0]

    def run(self, names: list[str], step: int, state: TrainState, writer: MetricWriter) -> None:
        """Evaluates the network that inference would use after the step."""
        params = self._method.inference_params(state.params, state.extra)
        variables = {"params": params, **state.model_state}
        for name in names:
            figures = self._evaluate[name](variables)
            self._found[name].append({"step": step, **figures})
            writer.scalars(step, {f"{name}/{key}": value for key, value in figures.items()})
            evaluator = self._evaluators[name]
            if evaluator.keep_best:
                self._keep(name, step, figures[evaluator.figure], params, state.model_state)

    def _keep(self, name: str, step: int, value: float, params: PyTree, others: PyTree) -> None:
        figure = self._evaluators[name].figure
        if self._best and value <= self._best[figure]:
            return
        self._best = {"step": step, "evaluator": name, figure: value}
        if jax.process_index() == 0:
            save_weights(self._folder / BEST_WEIGHTS, params, others)
            write_json(self._folder / _BEST, self._best)

    def figures(self) -> dict[str, Any]:
        """Returns ``evaluations`` by name, and ``best_step`` and ``best``, if there are any."""
        found: dict[str, Any] = {}
        if self._found:
            found["evaluations"] = self._found
        if self._best:
            evaluator = self._evaluators[self._best["evaluator"]]
            count = evaluator.count(self._sources[self._best["evaluator"]])
            found["best_step"] = self._best["step"]
            found["best"] = {
                **self._best,
                "weights": BEST_WEIGHTS,
                "selection": (
                    f"{BEST_WEIGHTS} was CHOSEN BY THE GROUND TRUTH of {count} images of"
                    f" {evaluator.split}: its figures on them are the best of"
                    f" {len(self._found[self._best['evaluator']])} checkpoints, not those of a"
                    " network that has not seen them"
                ),
            }
        return found
