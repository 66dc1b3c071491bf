"""Makes the names, numbers and sentences that the page and the picture share."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from wsss_jax.report.collect import Evaluation, Run, Training

_KINDS = {
    "infer_cam": "Seed",
    "crf": "Seed after CRF",
    "random_walk": "Random walk",
    "pseudo_labels": "Pseudo masks",
    "predict": "Segmentation",
}
_METHODS = {
    "cam": "CAM",
    "seam": "SEAM",
    "ssenet": "SSENet",
    "puzzle_cam": "Puzzle-CAM",
    "pss": "RCM + MAM",
    "ecsnet": "ECS-Net",
    "recam": "ReCAM",
    "lpcam": "LPCAM",
    "affinity": "AffinityNet",
    "irnet": "IRNet",
    "segmentation": "Segmentation network",
}
_BACKBONES = {
    "resnet38": "ResNet38",
    "mobilenet_v2": "MobileNetV2",
    "efficientnet_lite": "EfficientNet-Lite",
    "vgg16": "VGG16",
    "convnext": "ConvNeXt",
    "vit": "ViT",
    "augreg": "ViT (AugReg)",
    "dinov2": "DINOv2",
    "clip_image": "CLIP",
    "resnet": "ResNet-50",
    "resnet50": "ResNet-50",
    "resnet101": "ResNet-101",
    "tiny": "a tiny network",
}
_PROTOCOLS = {
    "strict": "Protocol “strict”: a class in neither the ground truth nor the masks counts as 0.",
    "present": "Protocol “present”: a class in neither the ground truth nor the masks is left out.",
}
_CHOICES = {
    "fixed": "fixed beforehand",
    "held_out": "from held-out images",
    "contrast": "from the images' colors",
    "oracle": "best on these images",
}
_CHOICE_SENTENCES = {
    "fixed": "The threshold was fixed in the recipe before anything was scored.",
    "contrast": "The threshold was chosen by the colors of the images, without ground truth.",
    "held_out": "The threshold was chosen on a small held-out set of images.",
    "oracle": (
        "The threshold was chosen on the very images that are scored (oracle): an upper bound,"
        " comparable with published seed scores that choose it the same way."
    ),
}


@dataclasses.dataclass(frozen=True)
class Headline:
    """A large number with its label, unit and a note; `score` is in 0…1 if it is a score."""

    label: str
    value: str
    unit: str
    note: str
    score: float | None = None


def method_name(name: str) -> str:
    """Returns the name of a method as papers write it."""
    return _METHODS.get(name, name)


def backbone_name(name: str) -> str:
    """Returns the name of a backbone as papers write it."""
    return _BACKBONES.get(name, name)


def title(run: Run) -> str:
    """Returns the name of the method, or of the run if there is no method."""
    return method_name(run.method) or run.name


def name(evaluation: Evaluation) -> str:
    """Returns what was scored and the split, such as ``Seed · train``."""
    return " · ".join(filter(None, (kind(evaluation), evaluation.split)))


def protocols(evaluations: Iterable[Evaluation]) -> list[str]:
    """Returns the names of the protocols of the scores."""
    return sorted({str(e.stage.metrics.get("protocol", "")) for e in evaluations} - {""})


def protocol_sentences(evaluations: Iterable[Evaluation]) -> list[str]:
    """Returns a sentence for each protocol that says how classes without a pixel count."""
    return [_PROTOCOLS[name] for name in protocols(evaluations) if name in _PROTOCOLS]


def kind(evaluation: Evaluation) -> str:
    """Returns what was scored, such as seed, pseudo masks or segmentation."""
    return _KINDS.get(evaluation.scored.type, evaluation.scored.name.replace("_", " "))


def percent(value: object) -> str:
    """Returns a fraction in percent, such as 52.3, or a dash if it is not a finite number."""
    if isinstance(value, int | float) and math.isfinite(value):
        return f"{100 * value:.1f}"
    return "–"


def plain(value: Any) -> str:
    """Returns a value of a recipe as text."""
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "none"
    if value is None or value in ("", {}):
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def rounded(values: Sequence[Sequence[float | None]]) -> list[list[float | None]]:
    """Returns fractions with the digits that a page shows, so that it stays small."""
    return [[None if v is None else round(v, 5) for v in row] for row in values]


def shortened(text: str, length: int) -> str:
    """Shortens a text to `length` characters, with an ellipsis at the end."""
    return text if len(text) <= length else text[: length - 1] + "…"


def count(amount: int | float, noun: str) -> str:
    """Returns a number with its noun, such as ``1 image`` or ``1,464 images``."""
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"


def duration(seconds: int | float) -> tuple[str, str]:
    """Returns a time span as value and unit, such as ("3:07", "min")."""
    total = round(seconds)
    if total < 60:
        return f"{seconds:.1f}" if seconds < 10 else str(total), "s"
    if total < 3600:
        return f"{total // 60}:{total % 60:02d}", "min"
    return f"{total // 3600}:{total % 3600 // 60:02d}", "h"


def _trained(training: Training) -> str:
    """Returns the name of the method of a training."""
    method = training.stage.section.get("method")
    return str(method.get("name", "")) if isinstance(method, dict) else str(method or "")


def threshold_note(evaluation: Evaluation) -> str:
    """Returns ``threshold 0.21, fixed beforehand``, or its replacement; "" if there is none."""
    if evaluation.scored.type == "predict":
        return ""  # A network needs no threshold, even if its training masks did.
    threshold = evaluation.find("threshold")
    if isinstance(threshold, int | float):
        how = _threshold_choice(evaluation)
        return f"threshold {threshold:.2f}" + (f", {how}" if how else "")
    alpha, band = evaluation.find("alpha"), evaluation.find("ignore_band")
    if band:
        low, high = band
        return f"threshold {high:g}, ignored down to {low:g}"
    if not alpha:
        return ""
    # The alphas of a CRF can be multiples of another one.
    crf = (stage for stage in evaluation.makers[:2] if stage.type == "crf")
    unit = next((stage.metrics.get("alpha_unit", 1.0) for stage in crf), 1.0)
    return f"background (1 − max)^{alpha * unit:.3g}"


def _threshold_choice(evaluation: Evaluation) -> str:
    split, choice = _taken_over(evaluation), str(evaluation.find("threshold_choice", default=""))
    return f"the best on {split}" if split else _CHOICES.get(choice, choice)


def _taken_over(evaluation: Evaluation) -> str:
    """Returns the other split whose best threshold is used, or "" if it was chosen differently."""
    origin = evaluation.threshold_from
    if origin is None or evaluation.find("threshold_choice") == "held_out":
        return ""
    split = str(origin.section.get("split", ""))
    return "" if split == evaluation.split else split


def choice_sentence(evaluation: Evaluation) -> str:
    """Returns a sentence that says how the threshold was chosen."""
    split, choice = _taken_over(evaluation), str(evaluation.find("threshold_choice", default=""))
    if split:
        return f"The threshold is the best one on split {split}, taken over unchanged."
    held_out = evaluation.find("held_out_images")
    if choice == "held_out" and held_out:
        images = count(held_out, "image")
        return f"The threshold was chosen on {images} held out, which do not count in the scores."
    return _CHOICE_SENTENCES.get(choice, "")


def background_sentences(evaluations: Iterable[Evaluation]) -> list[str]:
    """Returns a sentence that explains the backgrounds of `threshold_note`, if there are some."""
    if not any(threshold_note(e).startswith("background (1 − max)^") for e in evaluations):
        return []
    return [
        "“background (1 − max)^α” has no fixed threshold: the score of the background in a pixel is"
        " one minus its largest activation, to the power of α. The larger α is, the less"
        " background is left."
    ]


def no_scores_sentence(run: Run) -> str:
    """Returns why there are no scores."""
    if any(stage.type == "evaluate" for stage in run.stages):
        return "Nothing was evaluated in this run."
    return (
        "There are no scores, as this recipe has no stage of type evaluate: it was made for images"
        " without ground-truth masks. The pictures show what it has found."
    )


def scales_note(evaluation: Evaluation) -> str:
    """Returns scales such as ``0.5, 1, 1.5, 2``, or a dash if no network was applied."""
    scales = evaluation.find("scales")
    if not isinstance(scales, list | tuple):
        return "–"
    return ", ".join(f"{scale:g}" for scale in scales)


def flip_note(evaluation: Evaluation) -> str:
    """Returns whether flips were used: yes, no, or a dash if unknown."""
    flip = evaluation.find("flip")
    return "–" if flip is None else ("yes" if flip else "no")


def crf_note(evaluation: Evaluation) -> str:
    """Returns whether a dense CRF was used for what was scored, as yes or no."""
    used = any(stage.type == "crf" or stage.section.get("crf") for stage in evaluation.makers)
    return "yes" if used else "no"


def ground_truth_note(evaluation: Evaluation, run: Run) -> str:
    """Returns the folder of the ground-truth masks, or the builder that generated them."""
    folder = evaluation.find("ground_truth") or run.data.get("masks") or run.data.get("root")
    return str(folder or f"{run.data.get('builder', 'data')} (generated)")


def leading(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Returns the most important evaluations of a run, at most four.

    If a stage has several results, the best one counts. A long chain is represented by its first
    two and last two evaluations.
    """
    best: dict[tuple[str, str], Evaluation] = {}
    for evaluation in evaluations:
        key = evaluation.scored.name, evaluation.split
        rival = best.setdefault(key, evaluation)
        if evaluation.stage.metrics["miou"] > rival.stage.metrics["miou"]:
            best[key] = evaluation
    found = list(best.values())
    return found if len(found) <= 4 else [*found[:2], *found[-2:]]


def headlines(run: Run) -> list[Headline]:
    """Returns the figures at the top of the page, at most six."""
    found = []
    for evaluation in leading(run.evaluations):
        images = evaluation.stage.metrics.get("images")
        remarks = [count(images, "image") if isinstance(images, int) else ""]
        remarks.append(threshold_note(evaluation))
        found.append(
            Headline(
                label=name(evaluation),
                value=percent(evaluation.stage.metrics["miou"]),
                unit="mIoU",
                note="; ".join(filter(None, remarks)),
                score=evaluation.stage.metrics["miou"],
            )
        )
    times = [training.seconds for training in run.trainings]
    if any(times):
        value, unit = duration(sum(time or 0.0 for time in times))
        found.append(Headline("Training time", value, unit, _steps_note(run.trainings)))
    # If there are several trainings, this is the speed of the one that the report is named after.
    ranked = sorted(run.trainings, key=lambda t: _trained(t) != run.method)
    for training in ranked:
        if rate := training.images_per_second:
            speed = f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"
            found.append(Headline("Training speed", speed, "images/s", _batch_note(training)))
            break
    return found


def weights_note(training: Training) -> str:
    """Returns sentences on the parameters and what they started from; "" if not recorded."""
    metrics, sentences = training.stage.metrics, []
    counts = metrics.get("parameters_of")
    if counts:
        parts = [
            f"{part} {sum(both.values()):,}"
            + (f" ({both['frozen']:,} frozen)" * bool(both["frozen"]))
            for part, both in counts.items()
        ]
        sentences.append(f"Parameters: {', '.join(parts)}.")
    for start in metrics.get("initial_weights", ()):
        digest = f"SHA-256 {start['sha256'][:16]}"
        if "stage" in start:
            what = "The backbone starts" if start["part"] else "The network starts"
            drawn = start.get("drawn")
            rest = f", but {', '.join(drawn)} from random numbers" if drawn else ""
            sentences.append(f"{what} from stage {start['stage']} ({digest}){rest}.")
            continue
        changes = [
            f"{len(start[kind])} {words}"
            for kind, words in (("resized", "resized"), ("unexpected", "left out"))
            if start[kind]
        ]
        published = f"{start['catalogue']}, " if start.get("catalogue") else ""
        matched = ", ".join([f"{start['matched']} arrays matched", *changes])
        sentences.append(
            f"The backbone starts from {start['file']} ({published}{start['format']}, {digest}):"
            f" {matched}."
        )
    return " ".join(sentences)


def _steps_note(trainings: tuple[Training, ...]) -> str:
    steps = [row["step"] for training in trainings for row in training.rows[-1:]]
    sections = [training.stage.section for training in trainings]
    # If a number of steps is set, the epochs have no effect.
    epochs = [None if section.get("steps") else section.get("epochs") for section in sections]
    parts = [count(sum(steps), "step")] if steps else []
    if len(trainings) == 1 and epochs[0]:
        parts.append(count(epochs[0], "epoch"))
    return ", ".join(parts)


def _batch_note(training: Training) -> str:
    section = training.stage.section
    crop = dict(section.get("augment") or {}).get("crop")
    batch = section.get("batch_size")
    return ", ".join(
        f"{word} {value}" for word, value in (("batch", batch), ("crop", crop)) if value
    )
