"""Vision transformers trained on ImageNet-21k (Steiner et al., *How to train your ViT?*, 2021)."""

from typing import ClassVar

from wsss_jax.models.vit import Vit


class AugReg(Vit):
    """The network of `Vit` for images in −1…1, by default S/16 with images of 224 pixels."""

    pixel_mean: ClassVar[tuple[float, float, float]] = (127.5, 127.5, 127.5)
    pixel_std: ClassVar[tuple[float, float, float]] = (127.5, 127.5, 127.5)
