"""The names under which the authors' programs save their networks, by those of our variables."""

import re
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

DEEPLAB_V1 = {
    "head.layer_0.conv": "conv_fov",
    "head.layer_0.norm": "bn_fov",
    "head.layer_1.conv": "conv_fov2",
    "head.layer_1.norm": "bn_fov2",
    "head.classifier": "cls_conv",
}
IRN_CAM_STAGES = ({"conv1": 0, "bn1": 1, "layer1": 4}, {"layer2": 0}, {"layer3": 0}, {"layer4": 0})
IRN_STAGES = ({"conv1": 0, "bn1": 1}, *({f"layer{n}": 0} for n in range(1, 5)))


def deeplab_v1(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """SEAM's authors' DeepLabv1."""
    found = {}
    for name, array in arrays.items():
        module, leaf = name.rsplit(".", 1)
        found[f"{DEEPLAB_V1.get(module, f'backbone.{module}')}.{leaf}"] = array
    return found


def irn(arrays: Mapping[str, np.ndarray], *, cam: bool) -> dict[str, np.ndarray]:
    """IRNet's program, which registers most layers three times: its CAM, or the network itself."""
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        for other in _irn_names(name, cam):
            found[other] = array
        if name.endswith("running_var"):
            for other in _irn_names(name.replace("running_var", "num_batches_tracked"), cam):
                found[other] = np.array(3)
    if not cam:
        found["path_indices0"] = np.arange(6).reshape(1, 2, 3)
        found["path_indices11"] = np.arange(6).reshape(1, 2, 3)
        found["disp_target"] = np.zeros((1, 2, 34, 1), np.float32)
    return found


def _irn_names(name: str, cam: bool) -> Iterator[str]:
    module, rest = name.split(".", 1)
    for number, stage in enumerate(IRN_CAM_STAGES if cam else IRN_STAGES):
        if module in stage:
            yield f"resnet50.{name}"
            yield f"stage{number + 1}.{stage[module]}.{rest}"
            yield f"backbone.{number}.{stage[module]}.{rest}"
    if module == "fc8":
        yield f"classifier.{rest}"
        yield f"newly_added.0.{rest}"
    if match := re.fullmatch(r"(edge|displacement)\.fc_(edge|dp)(\d)\.(.+)", name):
        yield f"fc_{match[2]}{match[3]}.{match[4]}"
        yield f"{match[2]}_layers.{int(match[3]) - 1}.{match[4]}"
    if name == "displacement.mean_shift.running_mean":
        yield from (
            "mean_shift.running_mean",
            "fc_dp7.4.running_mean",
            "dp_layers.6.4.running_mean",
        )


def mxnet(names: Iterable[str]) -> dict[str, str]:
    """The names of ResNet38's ImageNet weights in MXNet, by those in PyTorch."""
    leaves = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean"}
    leaves["running_var"] = "moving_var"
    found = {}
    for name in names:
        kind = "aux" if "running" in name else "arg"
        layer, leaf = name.rsplit(".", 1)
        if match := re.fullmatch(r"b(\d)(?:_(\d))?\.(conv|bn)_(branch\w+)", layer):
            level, number, sort, branch = match.groups()
            place = f"{level}b{number}" if number else f"{level}a"
            layer = f"{'res' if sort == 'conv' else 'bn'}{place}_{branch}"
            end = "weight" if sort == "conv" else leaves[leaf]
        else:
            end = "weight" if layer == "conv1a" else leaves[leaf]
        found[name] = f"{kind}:{layer}_{end}"
    return found
