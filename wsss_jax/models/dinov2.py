"""Vision transformers of DINOv2 (Oquab et al., TMLR 2024), also with registers."""

from wsss_jax.models.positions import PositionResize
from wsss_jax.models.vit import Vit


class DinoV2(Vit):
    """The network of `Vit` with layer scale and patches of 14 pixels, by default S/14.

    With registers (Darcet et al., ICLR 2024), `registers` is 4 and `position_resize` is
    ``bicubic_antialias``.
    """

    patch: int = 14
    pretrain_size: int = 518
    layer_scale: float = 1e-5
    position_resize: PositionResize = "bicubic_offset"
