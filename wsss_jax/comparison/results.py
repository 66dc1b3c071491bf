"""Reads the runs of a comparison and writes its results."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from wsss_jax.comparison.gallery import make_gallery, shown_split
from wsss_jax.comparison.page import build_page
from wsss_jax.comparison.picture import draw_picture
from wsss_jax.comparison.runs import Planned, Recipe, state
from wsss_jax.comparison.table import as_json, markdown
from wsss_jax.comparison.trials import Comparison, Entry, Trial, labels
from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write, write_json
from wsss_jax.host.provenance import git_revision, versions
from wsss_jax.pipeline import graph, memory
from wsss_jax.report.collect import collect as collect_run
from wsss_jax.report.gallery import Sample
from wsss_jax.stages.base import Context

_IMAGES_PER_GROUP = 2


def collect(
    recipes: Sequence[Recipe],
    planned: Sequence[Planned],
    seeds: Sequence[int],
    failed: Mapping[Planned, str],
) -> Comparison:
    """Reads the finished runs of `planned`, and names the others with their reasons in `failed`."""
    names = labels({recipe.name: recipe.method for recipe in recipes})
    found: dict[str, list[Trial]] = {recipe.name: [] for recipe in recipes}
    missing = []
    for one in planned:
        word, reason = state(one)
        if word == "finished":
            found[one.recipe.name].append(_read(one))
        else:
            why = failed.get(one) or reason or ("not started" if word == "new" else "not finished")
            missing.append((one.recipe.name, one.seed, why))
    entries = tuple(Entry(name, names[name], tuple(done)) for name, done in found.items() if done)
    return Comparison(recipes[0].name, tuple(seeds), entries, tuple(missing))


def _read(one: Planned) -> Trial:
    run = collect_run(graph.stages(one.config), one.config, one.workdir, "")
    by_name = {evaluation.stage.name: evaluation for evaluation in run.evaluations}
    scored = {split: by_name[name] for split, name in one.recipe.scored.items()}
    return Trial(one.seed, run, scored, memory.read(one.workdir))


def write(comparison: Comparison, config: ConfigDict, folder: Path, command: str) -> str:
    """Writes compare.json, .md, .html and .png to `folder`, and returns the text of the table.

    `config` is that of any recipe, because they have the same data.
    """
    stages = [s for e in comparison.entries for t in e.trials for s in t.run.stages]
    provenance = {
        "Command": command,
        "Revision": git_revision(),
        "Devices": ", ".join(dict.fromkeys(stage.device for stage in stages if stage.device)),
        "Versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
    }
    split = shown_split(comparison)
    samples, classes, reason = _pictures(comparison, config, split)
    text = markdown(comparison)
    page = build_page(comparison, samples, split, classes, provenance, reason)
    files = {
        "compare.md": text.encode(),
        "compare.html": page.encode(),
        "compare.png": draw_picture(comparison, samples),
    }
    write_json(folder / "compare.json", {**as_json(comparison), "provenance": provenance})
    for name, data in files.items():
        with atomic_write(folder / name) as file:
            file.write(data)
    return text


def _pictures(
    comparison: Comparison, config: ConfigDict, split: str
) -> tuple[list[Sample], tuple[str, ...], str]:
    """Returns the gallery, the classes, and a sentence that says why there are no images, or ""."""
    if not split:
        return [], (), "The recipes have no split in common, so there are no images."
    first = comparison.entries[0].trials[0].scored[split].stage.folder
    try:
        source = Context(config, first.parent, first.name, first).source(split)
        samples = make_gallery(comparison, source, split, _IMAGES_PER_GROUP)
    except UserError as error:
        # The page shows the scores even if the photographs have been moved.
        return [], (), f"The images are left out: {error}"
    return samples, tuple(source.classes), ""
