"""What can be seen to be wrong in a recipe is refused before its first stage."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ml_collections import ConfigDict

from wsss_jax import main
from wsss_jax.errors import UserError
from wsss_jax.methods.affinity import Affinity
from wsss_jax.pipeline import graph
from wsss_jax.pipeline.config import load_config, read_recipe
from wsss_jax.stages.base import Context, Stage

LPCAM, PLAIN = (dict(name=name, backbone=dict(name="tiny")) for name in ("lpcam", "cam"))
WRONG = [
    ("seam_shapes", "crf.alphas", (8.0, 0.0), "crf: expected alphas above 0"),
    ("seam_shapes", "crf.alphas", (8.0, 16.0), "stage eval_crf_24: expected one of the alphas of"),
    ("seam_shapes", "crf.bilateral", (0, 5, 4), "crf: expected CRF widths above 0"),
    ("seam_shapes", "crf.needs.cams", "train", "stage crf: .* makes cams/, found train, which"),
    (
        "seam_shapes",
        "cam.normalize",
        "mean",
        r"expected cam\.normalize to be one of 'min_max', 'max'",
    ),
    ("seam_shapes", "cam.scales", (), "cam: expected positive scales"),
    ("seam_shapes", "masks_val.needs.checkpoint", "walk", "stage masks_val: .* makes weights.npz"),
    ("seam_shapes", "eval_cam_train.threshold", "best", "stage eval_cam_train: expected a number"),
    (
        "seam_shapes",
        "eval_cam_val.threshold",
        "from:crf",
        "stage eval_cam_val: .* found 'from:crf'",
    ),
    (
        "seam_shapes",
        "protocol",
        "loose",
        r"expected protocol to be one of 'strict', 'present', found 'loose'",
    ),
    ("seam_shapes", "train_affinity.affinity_alphas", (24.0, 8.0), "the smaller first"),
    ("seam_shapes", "train_affinity.affinity_alphas", (4.0, 24.0), "alphas of crf, 8, 24, found 4"),
    ("seam_shapes", "train_affinity.method.map_stride", 0, "map_stride of 1 or more, found 0"),
    ("seam_shapes", "train_affinity.method.dims", (32, 32, 64, 0), "expected four dims above 0"),
    ("seam_shapes", "train_affinity.needs.labels", "cam", "needs.labels .* makes crf/, found cam"),
    ("seam_shapes", "walk.beta", 0.0, "walk: expected beta above 0"),
    ("seam_voc_light", "walk.alpha", "from:eval", "stage walk: .* found 'from:eval'"),
    ("seam_voc_light", "walk.alpha", "high", "stage walk: expected a number or from:NEED as alpha"),
    ("seam_voc_light", "walk.needs.threshold", "crf", "stage walk: .* makes metrics.json"),
    ("seam_voc_light", "crf.alpha_unit", "0", "stage crf: expected alpha_unit above 0, found 0"),
    ("seam_voc_light", "crf.alpha_unit", "from:all", "stage crf: .* found 'from:all'"),
    ("seam_shapes", "walk.needs.checkpoint", "crf", "stage walk: .* found crf, which makes crf/"),
    (
        "cam_irn_shapes",
        "walk.network",
        "affinity",
        "network predicts affinity, found train_irnet, .* predicts boundary, .* change network",
    ),
    ("seam_shapes", "cam.output", "logits", "logits, found train, whose network predicts cam, cam"),
    ("seam_shapes", "masks_val.needs.checkpoint", "train", "whose network predicts logits, found"),
    ("cam_irn_shapes", "walk.threshold", 1.5, "walk: expected threshold below 1"),
    ("cam_irn_shapes", "irn_labels.foreground", 0.1, "irn_labels: expected thresholds 0 <="),
    ("cam_irn_shapes", "train_irnet.method.radius", 1, "expected radius of 2 or more, found 1"),
    (
        "cam_irn_shapes",
        "train_irnet.needs.masks",
        "train",
        "needs.masks to name a stage that makes",
    ),
    (
        "seam_voc",
        "train_segmentation.method.backbone.name",
        "vgg",
        r"train_segmentation\.method\.backbone\.name to be one of .*, found 'vgg'",
    ),
    ("seam_shapes", "train_segmentation.method.presence_weight", -1.0, "0 or more, found -1"),
    ("seam_shapes", "train_segmentation.least_confidence", 60.0, "in 0…1, found 60: change it"),
    ("seam_shapes", "train_segmentation.needs.masks", "crf", "makes masks/, found crf"),
    (
        "seam_voc_test",
        "submit.competition",
        "comp7",
        r"expected submit\.competition to be one of 'comp5'",
    ),
    ("seam_own_light", "pseudo_labels.threshold", "some", "stage pseudo_labels: .* found 'some'"),
    (
        "seam_own_light",
        "pseudo_labels.threshold",
        "from:cat",
        "a need of the stage .* found 'from:cat'",
    ),
    ("seam_own_light", "pseudo_labels.needs.chosen", "cam", "needs.chosen .* makes metrics.json"),
    (
        "seam_own_light",
        "pseudo_labels.alpha",
        "from:chosen",
        r"expected pseudo_labels\.alpha to be a number, found 'from:c",
    ),
    ("seam_own_light", "pseudo_labels.ignore_band", (0.5, 0.2), "expected ignore_band .low, high"),
    ("seam_own_light", "threshold.images", 0, "threshold: expected images of 1 or more"),
    (
        "seam_voc",
        "train_segmentation.optimizer.schedule",
        "step",
        "'polynomial', 'cosine', 'constant', found 'step'",
    ),
    ("seam_own_light", "pseudo_labels.needs.cams", "train", "stage pseudo_labels: .* cams/"),
    ("seam_shapes", "crf.needs.cam", "cam", "stage crf: .*found cam; did you mean cams"),
    (
        "seam_shapes",
        "eval_cam_train.needs.prad",
        "cam",
        "found cam; did you mean pred",
    ),
    ("seam_own_light", "pseudo_labels.needs.csr", "cam", "pseudo_labels: .*; did you mean crf"),
    ("seam_shapes", "train.method.head_lr", -1.0, "expected head_lr of 0 or more, found -1"),
    ("seam_shapes", "train.method.dropout", 1.5, "dropout from 0 to below 1, found 1.5"),
    ("seam_shapes", "train_affinity.method.head_lr", -0.5, "expected head_lr of 0 or more"),
    ("seam_voc", "train.method.backbone.dropout", (0.3, -0.1), r"dropout .* found \(0.3, -0.1\)"),
    ("seam_voc", "train_segmentation.method.head.dropout", 2.0, "dropout .* found 2"),
    ("seam_shapes", "train.method.small_scale", 0.0, "expected small_scale above 0, found 0.0"),
    ("seam_shapes", "train.method.topk", 1.5, "expected topk from 0 to 1, found 1.5"),
    ("seam_shapes", "train.method.map_stride", -4, "expected map_stride of 0 or more, found -4"),
    ("ssenet_shapes", "train.method.small_scale", -0.3, "expected small_scale above 0"),
    ("puzzlecam_shapes", "train.method.alpha", -1.0, "expected alpha of 0 or more, found -1"),
    ("puzzlecam_shapes", "train.method.ramp", 1.5, "expected ramp from 0 to 1, found 1.5"),
    ("puzzlecam_shapes", "train.augment.crop", 100, "16 pixels, found 100: .* to 96 or 112"),
    ("ecsnet_shapes", "train.method.dilations", (1, 0), r"dilations above 0, found \(1, 0\)"),
    ("pss_shapes", "train_rcm.method.region_stride", 0, "region_stride of 1 or more, found 0"),
    ("pss_shapes", "train_rcm.method.temperature", 0.0, "expected temperature above 0"),
    ("pss_shapes", "train_rcm.method.mask_scales", (1.0, 2.0, 2.0), "mask_scales, each once"),
    ("cam_shapes", "train.method", LPCAM, "method that is trained, found lpcam, whose network a"),
    ("lpcam_shapes", "prototypes.method", PLAIN, "method lpcam in a stage .* found cam"),
    ("lpcam_shapes", "prototypes.method.backbone.width", 16, "settings of that of train, whose"),
    ("lpcam_shapes", "prototypes.needs.features", "plain_cam", "makes features/, found plain_cam"),
    ("lpcam_shapes", "prototypes.context", (0.9, 0.1), r"low <= high in context, found \(0.9, 0.1"),
    ("lpcam_shapes", "class_features.threshold", 1.0, "threshold from 0 to below 1, found 1"),
    ("lpcam_shapes", "class_features.samples", 0, "expected samples of 1 or more, found 0"),
    ("cam_irn_shapes", "train_irnet.method.edge_lr", -1.0, "expected edge_lr of 0 or more"),
    (
        "seam_voc",
        "train.method.backbone.bn_momentum",
        0.1,
        "bn_momentum of 0 in the backbone, whose batch norm seam keeps frozen, found 0.1",
    ),
    (
        "seam_voc",
        "train_segmentation.method.backbone.bn_momentum",
        1.5,
        "expected bn_momentum from 0 to 1, found 1.5",
    ),
    ("seam_shapes", "train.method.backbone.width", 12, "width of 8, 16, ..., found 12"),
    (
        "seam_shapes",
        "eval_cam_train.compare.contrast",
        "oracle",
        "eval_cam_train: expected numbers or from:NEED in compare, found 'oracle'",
    ),
    ("seam_shapes", "train.steps", -3, "train: expected steps of 0 or more, found -3: change it"),
    ("seam_shapes", "train.epochs", -1, "train: expected epochs of 0 or more, found -1"),
    ("seam_shapes", "train.epochs", 0, "train: expected epochs or steps above 0, found 0 for both"),
    ("seam_shapes", "train.batch_size", 0, "train: expected batch_size of 1 or more, found 0"),
    ("seam_shapes", "train.log_every", 0, "train: expected log_every of 1 or more, found 0"),
    ("seam_shapes", "train.image_every", -1, "train: expected image_every of 0 or more, found -1"),
    ("seam_shapes", "train.checkpoint_every", -1, "expected checkpoint_every of 0 or more"),
    ("seam_shapes", "train.keep", 0, "train: expected keep of 1 or more, found 0"),
    ("seam_shapes", "train.num_threads", -1, "train: expected num_threads of 0 or more"),
    ("seam_shapes", "train.prefetch", -1, "train: expected prefetch of 0 or more"),
]


@pytest.mark.parametrize(("recipe", "key", "value", "message"), WRONG)
def test_a_mistake_in_any_stage_is_refused_at_once(recipe: str, key: str, value: Any, message: str):
    c: Any = load_config(recipe)
    graph.check(graph.stages(c))
    with c.unlocked():
        section, _, name = key.rpartition(".")
        part = c
        for step in section.split(".") if section else ():
            part = part[step]
        part[name] = value
    with pytest.raises(UserError, match=message):
        graph.check(graph.stages(c))


def test_confidence_is_asked_of_stages_that_tell_it():
    c: Any = load_config("cam_irn_shapes")
    with c.unlocked():
        c.train_irnet.least_confidence = 0.5
    with pytest.raises(UserError, match="makes confidence/, found irn_labels, which makes"):
        graph.check(graph.stages(c))
    with c.unlocked():
        del c.train_irnet.needs.masks
        c.train_irnet.ground_truth = True
    with pytest.raises(UserError, match=r"expected needs\.masks, a stage that makes conf"):
        graph.check(graph.stages(c))


@pytest.mark.parametrize(
    ("need", "override", "message"),
    [
        (
            "backbone",
            "backbone.name=examples.token_contrast",
            "stage train_affinity: expected needs.backbone to name a stage whose backbone is that"
            " of this one, with method.backbone.name='examples.token_contrast', found train, with"
            " method.backbone.name='tiny': change method.backbone.name in one of the two, or name"
            " another stage",
        ),
        (
            "backbone",
            "backbone.width=16",
            "method.backbone.width=16, found train, with method",
        ),
        ("init", "name=cam", "whose network is that of this one, with method.name='affinity'"),
    ],
)
def test_weights_of_another_network_are_refused_at_once(need: str, override: str, message: str):
    stage = "train" if need == "init" else "train_affinity"
    changed: Any = read_recipe("seam_shapes", [f"--config.{stage}.method.{override}"])
    with changed.unlocked():
        changed.train_affinity.needs = {"labels": "crf", need: "train"}
    with pytest.raises(UserError) as error:
        graph.check(graph.stages(changed))
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("need", ["init", "backbone"])
def test_settings_that_change_no_weights_may_differ(need: str):
    c: Any = load_config("seam_shapes")
    with c.unlocked():
        second: Any = ConfigDict(c.train.to_dict())
        c.second = second
        second.needs = {need: "train"}
        c.stages = (*c.stages, "second")
        second.method.update(dtype="bfloat16", head_lr=3.0)
        second.method.backbone.remat = True
        graph.check(graph.stages(c))
        for stage, size in ((c.train, 70), (second, 140)):
            stage.method.backbone = {"name": "tests.toys.small_vit", "pretrain_size": size}
        del c.train_affinity.needs.backbone, c.train_segmentation.needs.backbone
        graph.check(graph.stages(c))
        for stage, grid in ((c.train, 6), (second, 12)):  # It cannot resize position embeddings.
            stage.method.backbone = {"name": "examples.token_contrast", "grid": grid}
    with pytest.raises(UserError, match=r"method\.backbone\.grid=12, found train, .*grid=6: ch"):
        graph.check(graph.stages(c))


@pytest.mark.parametrize("dry", [[], ["--dry_run"]])
def test_nothing_is_begun(
    dry: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("WSSS_JAX_DATA", str(tmp_path / "data"))
    command = ["main", "--config=seam_shapes", f"--workdir={tmp_path / 'run'}", *dry]
    assert main.main([*command, "--config.walk.beta=-1.0"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: walk: expected beta above 0, found -1.0: change it"
    ]
    assert not list(tmp_path.iterdir())


def test_batches_larger_than_the_data_are_refused_before_the_first_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WSSS_JAX_DATA", str(tmp_path / "data"))
    command = ["main", "--config=seam_shapes", f"--workdir={tmp_path / 'run'}"]
    command += ["--config.data.train_images=6", "--config.data.val_images=2"]
    command += ["--config.train.batch_size=2", "--config.train_affinity.batch_size=7"]
    assert main.main(command) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: stage train_affinity: expected a batch size of 1 to 6")
    assert not (tmp_path / "run/train").exists()


def test_the_split_of_an_evaluator_in_use_is_refused_by_a_dry_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WSSS_JAX_DATA", str(tmp_path / "data"))
    command = ["main", "--config=cam_shapes", f"--workdir={tmp_path / 'run'}", "--dry_run"]
    command += ["--config.train.evaluators.val.split=vall"]
    unused = "--config.train.evaluators.val.every=0"
    assert main.main([*command, unused]) == 0
    capsys.readouterr()
    assert main.main([*command, "--config.train.evaluators.val.every=5"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: stage train: evaluators.val.split: expected a split of the data, found 'vall';"
        " did you mean val?: change it"
    ]


@pytest.mark.parametrize("dry", [[], ["--dry_run"]])
def test_a_method_that_breaks_its_contract_is_shown_before_the_first_stage(
    dry: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """AffinityNet is trained after other stages."""
    monkeypatch.setenv("WSSS_JAX_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(Affinity, "stride", lambda method, output: 2 * method.map_stride)
    command = ["main", "--config=seam_shapes", f"--workdir={tmp_path / 'run'}", *dry]
    command += ["--config.data.train_images=16", "--config.data.val_images=2"]
    with pytest.raises(ValueError, match=r"Affinity\.predict: expected affinity of shape \[1, "):
        main.main(command)
    assert not (tmp_path / "run/train").exists()


class ManyClasses(Context):
    """A context whose split ``few`` has as many classes as masks can hold, and ``many`` one more.

    The classes are those of images without masks.
    """

    def source(self, split: str) -> Any:
        return SimpleNamespace(classes=("",) * {"few": 254, "many": 255}[split])


@pytest.mark.parametrize(
    "kind", ["pseudo_labels", "predict", "random_walk", "irn_labels", "evaluate"]
)
def test_more_classes_than_masks_can_hold_are_refused(kind: str, tmp_path: Path):
    ctx = ManyClasses(ConfigDict(), tmp_path, "masks", tmp_path)

    def check(split: str) -> None:
        Stage.from_config(Stage.defaults(kind, split=split), "masks").check_data(ctx)

    check("few")
    with pytest.raises(UserError, match=r"expected at most 254 classes.* found 255"):
        check("many")
