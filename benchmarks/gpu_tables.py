"""The tables and targets of `gpu` in Markdown, from the records of its measurements."""

from collections.abc import Mapping
from typing import Any

from benchmarks import gpu_recipe, tables
from benchmarks.gpu_plan import CAM, SEAM

Records = Mapping[str, dict[str, Any]]

UNKNOWN = "–"
LONGEST = 12
"""Single operations in the table of a profile."""
STEP_COLUMNS = ("measurement", "batch", "crop", "images/s", "ms a step", "TFLOP/s", "MFU, measured")
STEP_COLUMNS += ("MFU, data sheet", "roofline, ms", "what binds", "peak GiB", "first step, s")


def tables_of(known: Records) -> str:
    """Everything that the records say; what is not finished is named last.

    ``python benchmarks/gpu.py --only NAME`` repeats the measurement of that name.
    """
    parts = [_card, _ceilings, _steps, _profile, _targets]
    parts += [_inference, _recipe, _tests, _demo, _unfinished]
    return "\n\n".join(text for part in parts if (text := part(known)))


def _card(known: Records) -> str:
    found = known.get("environment", {})
    if "card" not in found:
        return ""
    versions = dict(found["versions"])
    for record in known.values():
        versions |= record.get("versions", {})
    named = ", ".join(f"{name} {value}" for name, value in sorted(versions.items()) if value)
    return f"{found['card']}; {found['processors']} processors; {named}"


def _ceilings(known: Records) -> str:
    rows = []
    for side in ("jax", "torch"):
        found = known.get(f"ceilings {side}", {})
        rates = [found.get(f"tflops_{dtype}") for dtype in ("bfloat16", "tf32", "float32")]
        if any(rates):
            rows.append([side, *map(number, (*rates, found.get("gb_per_second")))])
    head = ("library", "bfloat16, TFLOP/s", "TF32, TFLOP/s", "float32, TFLOP/s", "copy, GB/s")
    return table("Ceilings", head, rows)


def ceiling(known: Records, key: str) -> float | None:
    """The best of both libraries' ceilings."""
    found = [known.get(f"ceilings {side}", {}).get(key) for side in ("jax", "torch")]
    return max((one for one in found if one), default=None)


def step_figures(known: Records, record: Mapping[str, Any]) -> dict[str, Any]:
    """What follows from a step's record; values that are not known are None.

    The work of a step is the model's: loss and gradient, without what is computed twice to save
    memory, as XLA counts our network before it optimizes. PyTorch's networks have the same. The
    roofline is the least time of that work and of the bytes that XLA counts for our program, at
    the ceilings that were measured.
    """
    dtype = record["arguments"].get("dtype") or record["arguments"]["mode"]
    dtype = dtype if dtype in ("tf32", "float32") else "bfloat16"
    seconds, batch = record.get("step_seconds"), record.get("batch")
    found: dict[str, Any] = dict.fromkeys(
        ("images_per_second", "tflops", "mfu", "sheet_mfu", "roofline", "binds", "arithmetic")
    )
    work = _work(known, record)
    peak, copy = ceiling(known, f"tflops_{dtype}"), ceiling(known, "gb_per_second")
    if seconds and batch:
        found["images_per_second"] = batch / seconds
        found["tflops"] = work and work / seconds
    if work and peak:
        found["arithmetic"] = work / peak
        found["mfu"] = found["tflops"] and found["tflops"] / peak
        if copy and record.get("program"):
            memory = record["program"]["hbm_bytes"] / copy / 1e9
            found["roofline"] = max(work / peak, memory)
            found["binds"] = "memory" if memory > work / peak else "arithmetic"
    sheet = next((r["data_sheet"] for r in known.values() if r.get("data_sheet")), None)
    if sheet and dtype == "bfloat16" and found["tflops"]:
        found["sheet_mfu"] = found["tflops"] / sheet["bf16_tflops"]
    return found


def _work(known: Records, record: Mapping[str, Any]) -> float | None:
    """TFLOP of a step; for PyTorch, those of our step of the same recipe, image by image."""
    if record.get("tflop") or not record.get("batch"):
        return record.get("tflop")
    same = [
        one["tflop"] / one["batch"]
        for one in known.values()
        if one.get("tflop")
        and one.get("batch")
        and one.get("crop") == record.get("crop")
        and all(one["arguments"].get(k) == record["arguments"].get(k) for k in ("recipe", "stage"))
    ]
    return same[0] * record["batch"] if same else None


def _steps(known: Records) -> str:
    rows = []
    for name, record in known.items():
        if record["work"] != "step" or not record.get("step_seconds"):
            continue
        figures = step_figures(known, record)
        rows.append(
            [
                f"`{name}`",
                record["batch"],
                record["crop"],
                number(figures["images_per_second"]),
                number(1000 * record["step_seconds"]),
                number(figures["tflops"]),
                percent(figures["mfu"]),
                percent(figures["sheet_mfu"]),
                number(figures["roofline"] and 1000 * figures["roofline"]),
                figures["binds"] or UNKNOWN,
                number(record.get("peak_gib")),
                number(record.get("compile_seconds")),
            ]
        )
    return table("Training steps", STEP_COLUMNS, rows)


def _profile(known: Records) -> str:
    """Where the time of a step goes: its kinds of work, then its longest operations."""
    parts = []
    for name, record in known.items():
        found = record.get("profile")
        if not found or not found["device_seconds"]:
            continue
        total = found["device_seconds"]
        rows = [
            [kind, number(1000 * seconds), percent(seconds / total)]
            for kind, seconds in found["kinds"].items()
        ]
        rows.append([f"all {found['started']:,.0f} programs of a step", number(1000 * total), ""])
        rows += [
            [
                f"`{one['operation'] or one['kernel']}`, {one['of'] or one['what']}",
                number(1000 * one["seconds"]),
                percent(one["seconds"] / total),
            ]
            for one in found["operations"][:LONGEST]
        ]
        parts.append(table(f"Where the time goes, `{name}`", ("work", "ms a step", "share"), rows))
    return "\n\n".join(parts)


def _targets(known: Records) -> str:
    lines = [_utilization(known)]
    for recipe, batches in ((SEAM, (8, 32)), (CAM, (16,))):
        for batch in batches:
            ours = _rate(known, f"jax {recipe} bfloat16 batch {batch}")
            theirs = {
                mode: _rate(known, f"torch {recipe} {mode} batch {batch}")
                for mode in ("float32", "tf32", "bfloat16", "compiled", "max-autotune")
            }
            best = max((rate for rate in theirs.values() if rate), default=None)
            where = f"`{recipe}`, batch {batch}"
            if theirs["float32"] or batch != 32:
                lines.append(
                    _verdict(f"{where}: 3 × PyTorch, eager float32", ours, theirs["float32"], 3)
                )
            lines.append(_verdict(f"{where}: 1.1 × PyTorch's best", ours, best, 1.1))
    total = gpu_recipe.total_seconds(gpu_recipe.stage_seconds(known))
    said = _said(bool(total), (total or 0) < 3600, f"{(total or 0) / 60:.1f} min")
    lines.append(f"- `{gpu_recipe.recipe_of(known) or SEAM}` on VOC within one hour: {said}")
    return "### Targets\n\n" + "\n".join(lines)


def _utilization(known: Records) -> str:
    steps = [
        step_figures(known, record)
        for record in known.values()
        if record["work"] == "step"
        and record["name"].startswith(f"jax {SEAM} bfloat16")
        and record.get("step_seconds")
    ]
    best = max((one for one in steps if one["mfu"]), key=lambda one: one["mfu"], default=None)
    said, good = "", False
    if best:
        good = best["mfu"] >= 0.45
        said = f"{100 * best['mfu']:.0f} %"
        if not good and best["roofline"]:
            most = best["arithmetic"] / best["roofline"]
            said += f"; {best['binds']} binds, at which {100 * most:.0f} % are possible"
    return (
        f"- `{SEAM}`, bfloat16: 45 % MFU of the measured ceiling: {_said(bool(best), good, said)}"
    )


def _verdict(what: str, ours: float | None, theirs: float | None, least: float) -> str:
    ratio = ours / theirs if ours and theirs else 0.0
    return f"- {what}: {_said(bool(ratio), ratio >= least, f'{ratio:.2f} ×')}"


def _said(measured: bool, good: Any, figure: str) -> str:
    return f"{'**pass**' if good else '**miss**'}, {figure}" if measured else "not measured"


def _rate(known: Records, name: str) -> float | None:
    record = known.get(name, {})
    return record["batch"] / record["step_seconds"] if record.get("step_seconds") else None


def _inference(known: Records) -> str:
    rows = []
    for name, record in known.items():
        if record["work"] == "stages":
            for stage, (first, again) in record.get("stages", {}).items():
                network = record.get("network_images_per_second") if stage == "cam" else None
                figures = record["images"] / again, max(first - again, 0.0), network
                rows.append([f"`{name}`", f"`{stage}`", *map(number, figures)])
        if record["work"] == "inference" and "stage_seconds" in record:
            first, again = record["stage_seconds"]
            network = record.get("network_images_per_second")
            rate = record["images"] / again
            figures = rate, max(first - again, 0.0), network
            rows.append([f"`{name}`", "maps", *map(number, figures)])
    head = (
        "measurement",
        "stage",
        "images/s, files to files",
        "compiling, s",
        "images/s, network alone",
    )
    return table("Stages", head, rows)


def _recipe(known: Records) -> str:
    found = gpu_recipe.stage_seconds(known)
    if not any(one.seconds for one in found):
        return ""
    rows = [
        [f"`{one.name}`", one.how, number(one.seconds / 60) if one.seconds else "not measured"]
        for one in found
    ]
    total = gpu_recipe.total_seconds(found)
    rows.append(["all", "", number(total / 60) if total else "not measured"])
    title = f"The whole recipe `{gpu_recipe.recipe_of(known)}` with VOC's numbers of images"
    return table(title, ("stage", "from", "minutes"), rows)


def _tests(known: Records) -> str:
    found = known.get("tests on the device", {})
    if not found.get("counts"):
        return ""
    counts = ", ".join(
        f"{count} {outcome.lower()}" for outcome, count in sorted(found["counts"].items())
    )
    failed = "".join(f"\n- `{name}`: {why}" for name, why in found.get("failed", {}).items())
    platform = found.get("platform", "the device")
    return f"### Tests on {platform}\n\n{counts} ({found['status']}){failed}"


def _demo(known: Records) -> str:
    found = known.get("the demo", {})
    rows = [[f"`{name}`", number(value)] for name, value in found.get("stages", {}).items()]
    if rows:
        rows.append([f"all, with starting ({found['status']})", number(found["wall"])])
    return table("The demo, `seam_shapes`", ("stage", "seconds"), rows)


def _unfinished(known: Records) -> str:
    lines = []
    for name, record in known.items():
        if record["status"] != "finished":
            ended = f"{record['status']} after {record['seconds']} s"
            lines.append(" ".join([f"- `{name}`: {ended}", *record.get("said", [])[-1:]]))
    return "### Not finished\n\n" + "\n".join(lines) if lines else ""


def table(title: str, head: tuple[str, ...], rows: list[list[Any]]) -> str:
    """A table under a heading, or nothing without rows."""
    if not rows:
        return ""
    return "\n".join([f"### {title}\n", tables.head(head), *map(tables.row, rows)])


def number(value: float | None) -> str:
    """Three digits."""
    return UNKNOWN if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def percent(value: float | None) -> str:
    return UNKNOWN if value is None else f"{100 * value:.0f} %"
