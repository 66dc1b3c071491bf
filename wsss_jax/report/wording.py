"""Names, numbers and sentences that the page and the picture share."""

import dataclasses

from wsss_jax.report.collect import Evaluation, Run, Training

_KINDS = {
    "infer_cam": "Seed",
    "crf": "Seed after CRF",
    "random_walk": "Pseudo masks",
    "pseudo_labels": "Pseudo masks",
    "predict": "Segmentation",
}
_METHODS = {
    "cam": "CAM",
    "seam": "SEAM",
    "ssenet": "SSENet",
    "pss": "RCM + MAM",
    "ecsnet": "ECS-Net",
    "affinity": "AffinityNet",
    "irnet": "IRNet",
    "segmentation": "Segmentation network",
}
_BACKBONES = {
    "resnet38": "ResNet38",
    "mobilenet_v2": "MobileNetV2",
    "vgg16": "VGG16",
    "resnet": "ResNet-50",
    "tiny": "a tiny network",
}
_PROTOCOLS = {
    "strict": "Protocol “strict”: a class found neither in truth nor in masks counts as 0.",
    "present": "Protocol “present”: a class found neither in truth nor in masks is left out.",
}
_CHOICES = {
    "fixed": "fixed before scoring",
    "held_out": "chosen on held-out images",
    "oracle": "best on the scored images",
}
_CHOICE_SENTENCES = {
    "fixed": "The threshold was fixed in the recipe before anything was scored.",
    "held_out": "The threshold was chosen on a small held-out set, not on the images scored here.",
    "oracle": (
        "The threshold was chosen on the very images that are scored (oracle): an upper bound,"
        " comparable with published seed scores that choose it the same way."
    ),
}


@dataclasses.dataclass(frozen=True)
class Headline:
    """One large number: what it is, its value, unit and a remark; `score` in 0…1 where it is one."""

    label: str
    value: str
    unit: str
    note: str
    score: float | None = None


def method_name(name: str) -> str:
    """A method as papers write it."""
    return _METHODS.get(name, name)


def backbone_name(name: str) -> str:
    """A backbone as papers write it."""
    return _BACKBONES.get(name, name)


def title(run: Run) -> str:
    """The method's name, or the run's where there is no method."""
    return method_name(run.method) or run.name


def name(evaluation: Evaluation) -> str:
    """What was scored on which split: ``Seed · train``."""
    return " · ".join(filter(None, (kind(evaluation), evaluation.split)))


def protocol_sentence(protocol: str) -> str:
    """How classes without a pixel are counted."""
    return _PROTOCOLS.get(protocol, "")


def kind(evaluation: Evaluation) -> str:
    """What was scored: seed, pseudo masks, segmentation."""
    return _KINDS.get(evaluation.scored.type, evaluation.scored.name.replace("_", " "))


def percent(value: float | None) -> str:
    """A fraction as the field writes it: 52.3."""
    return "–" if value is None else f"{100 * value:.1f}"


def number(value: float) -> str:
    """Three or four significant digits without exponents where they can be avoided."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 1e-3 else f"{value:.1e}"


def count(amount: float, noun: str) -> str:
    """``1 image``, ``1,464 images``."""
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"


def duration(seconds: float) -> tuple[str, str]:
    """A time span as value and unit: ("3:07", "min")."""
    total = round(seconds)
    if total < 60:
        return f"{seconds:.1f}" if seconds < 10 else str(total), "s"
    if total < 3600:
        return f"{total // 60}:{total % 60:02d}", "min"
    return f"{total // 3600}:{total % 3600 // 60:02d}", "h"


def threshold_note(evaluation: Evaluation) -> str:
    """``threshold 0.21, fixed before scoring``; empty where no threshold is involved."""
    threshold, choice = evaluation.find("threshold"), evaluation.find("threshold_choice")
    if not isinstance(threshold, int | float):
        return ""
    how = _CHOICES.get(str(choice), str(choice or ""))
    return f"threshold {threshold:.2f}" + (f", {how}" if how else "")


def choice_sentence(evaluation: Evaluation) -> str:
    """How the threshold came about, as a sentence."""
    return _CHOICE_SENTENCES.get(str(evaluation.find("threshold_choice")), "")


def scales_note(evaluation: Evaluation) -> str:
    """``0.5, 1, 1.5, 2``; a dash where no network was applied at scales."""
    scales = evaluation.find("scales")
    if not isinstance(scales, list | tuple):
        return "–"
    return ", ".join(f"{scale:g}" for scale in scales)


def flip_note(evaluation: Evaluation) -> str:
    """Yes, no, or a dash where it is not known."""
    flip = evaluation.find("flip")
    return "–" if flip is None else ("yes" if flip else "no")


def crf_note(evaluation: Evaluation) -> str:
    """Whether a dense CRF had a part in what was scored."""
    stages = evaluation.chain
    return "yes" if any(s.type == "crf" or s.section.get("crf") for s in stages) else "no"


def ground_truth_note(evaluation: Evaluation, run: Run) -> str:
    """The folder of the masks that were compared with."""
    found = evaluation.find("ground_truth") or evaluation.find("gt") or run.data.get("root")
    return str(found or f"{run.data.get('builder', 'data')} (generated)")


def headlines(run: Run) -> list[Headline]:
    """The figures on top of the page, at most six."""
    found = []
    for evaluation in run.evaluations:
        images = evaluation.stage.metrics.get("images")
        remarks = [count(images, "image") if isinstance(images, int) else ""]
        if "miou_curve" in evaluation.stage.metrics:
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
    found = found[:4]
    times = [training.seconds for training in run.trainings]
    if any(times):
        value, unit = duration(sum(time or 0.0 for time in times))
        found.append(Headline("Training time", value, unit, _steps_note(run.trainings)))
    rate = next((t.images_per_second for t in run.trainings if t.images_per_second), None)
    if rate is not None:
        found.append(Headline("Training speed", number(rate), "images/s", _batch_note(run)))
    return found


def _steps_note(trainings: tuple[Training, ...]) -> str:
    steps = [row["step"] for training in trainings for row in training.rows[-1:]]
    epochs = [training.stage.section.get("epochs") for training in trainings]
    parts = [count(sum(steps), "step")] if steps else []
    if len(trainings) == 1 and epochs[0]:
        parts.append(count(epochs[0], "epoch"))
    return ", ".join(parts)


def _batch_note(run: Run) -> str:
    section = run.trainings[0].stage.section
    crop = dict(section.get("augment") or {}).get("crop_size") or section.get("crop_size")
    batch = section.get("batch_size")
    return ", ".join(
        f"{word} {value}" for word, value in (("batch", batch), ("crop", crop)) if value
    )
