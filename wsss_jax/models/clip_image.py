"""The image tower of CLIP (Radford et al., ICML 2021) as a vision transformer."""

from typing import ClassVar

from wsss_jax.models.transformer import Activation
from wsss_jax.models.vit import Vit


class ClipImage(Vit):
    """The network of `Vit` with a norm before the first block, by default OpenAI's ViT-B/16.

    Weights of OpenCLIP that were not trained by OpenAI mostly have the exact `activation`. An
    `embedding` of 512 (B) or 768 (L) adds the projection that is compared with texts.
    """

    width: int = 768
    pre_norm: bool = True
    patch_bias: bool = False
    activation: Activation = "quick_gelu"
    norm_epsilon: float = 1e-5

    pixel_mean: ClassVar[tuple[float, float, float]] = (122.7709383, 116.7460125, 104.09373615)
    pixel_std: ClassVar[tuple[float, float, float]] = (68.5005327, 66.6321579, 70.32316305)
