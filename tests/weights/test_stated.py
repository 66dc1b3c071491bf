"""What files state in words about their network is compared with the settings of the backbone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.models.test_vit_programs import AUGREG, CLIP, VIT, golden
from wsss_jax import weights_command
from wsss_jax.errors import UserError
from wsss_jax.models.base import Backbone
from wsss_jax.settings import read
from wsss_jax.weights.architectures import backbone_shapes
from wsss_jax.weights.import_weights import import_backbone

VIT_CONFIG: dict[str, Any] = dict(
    num_attention_heads=2, hidden_act="gelu", layer_norm_eps=1e-12, patch_size=8, image_size=32
)
CLIP_CONFIG = VIT_CONFIG | dict(hidden_act="quick_gelu", layer_norm_eps=1e-5)


def saved(case: str, folder: Path, name: str = "model.safetensors") -> Path:
    arrays = {n: np.ascontiguousarray(a) for n, a in golden(case)["arrays"].items()}
    if name.endswith(".npz"):
        np.savez(folder / name, allow_pickle=False, **arrays)
    else:
        save_file(arrays, folder / name)
    return folder / name


def load(path: Path, section: dict[str, Any]) -> None:
    backbone = read(Backbone, section)
    shapes = dict(backbone_shapes(backbone))
    import_backbone(path, backbone, shapes.pop("params"), shapes)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(num_attention_heads=4), "head_width=16, .* states head_width=8:"),
        (dict(hidden_act="gelu_pytorch_tanh"), "gelu, .* states activation=gelu_pytorch_tanh:"),
        (dict(layer_norm_eps=0.001), "norm_epsilon=1e-0.* states norm_epsilon=0.001:"),
        (dict(patch_size=16), "patch=8, .* states patch=16:"),
        (dict(image_size=64), "pretrain_size=32, .* states pretrain_size=64:"),
    ],
)
def test_a_config_of_other_settings_is_refused(wrong: dict, message: str, tmp_path: Path):
    for case, section, config, tower in (
        ("hf_vit", VIT, VIT_CONFIG, ""),
        ("hf_clip", CLIP, CLIP_CONFIG, "vision_config"),
    ):
        path, file = saved(case, tmp_path), tmp_path / "config.json"
        file.write_text(json.dumps({tower: config} if tower else config))
        load(path, section)
        of_open_clip = saved(case, tmp_path, "open_clip_model.safetensors")
        config = config | wrong
        file.write_text(json.dumps({tower: config} if tower else config))
        for given in (path, tmp_path, of_open_clip):
            with pytest.raises(UserError, match=message) as error:
                load(given, section)
            assert "\n" not in str(error.value) and str(given) in str(error.value)


def test_what_a_config_leaves_out_or_is_not_about_is_not_compared(tmp_path: Path):
    file = tmp_path / "config.json"
    for config in ({}, [], {"vision_config": None}, dict(num_attention_heads=None, patch_size=[8])):
        file.write_text(json.dumps(config))
        load(saved("hf_vit", tmp_path), VIT)
    # It belongs to the file of Hugging Face's name, not to another one of the folder.
    file.write_text(json.dumps(VIT_CONFIG | dict(num_attention_heads=4)))
    load(saved("hf_vit", tmp_path, "mine.safetensors"), VIT)
    file.write_text("{")
    with pytest.raises(UserError, match=r"expected JSON in .*config\.json, .*get it again, or rem"):
        load(tmp_path / "model.safetensors", VIT)


@pytest.mark.parametrize("case", ["augreg", "big_vision"])
def test_kernels_with_other_heads_are_refused(case: str, tmp_path: Path, capsys: Any):
    path = saved(case, tmp_path, "w.npz")
    load(path, AUGREG)
    with pytest.raises(UserError, match=r"head_width=32, found .*w\.npz, .* states head_width=16:"):
        load(path, AUGREG | dict(head_width=32))
    arguments = ["weights", "inspect", str(path), "--arch"]
    settings = "augreg,width=32,depth=2,patch=8,pretrain_size=32"
    assert weights_command.main([*arguments, f"{settings},head_width=32"]) == 0
    assert "  but it states head_width=16\n" in capsys.readouterr().out
    assert weights_command.main([*arguments, f"{settings},head_width=16"]) == 0
    assert "states" not in capsys.readouterr().out
    assert weights_command.main(arguments[:-1]) == 0
    told = capsys.readouterr().out
    assert "head_width=16" in told.split("backbone  ")[1].split(":")[0] and "states" not in told
