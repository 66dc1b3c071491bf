"""A backbone outside the package, named with dots: a vision transformer small enough for tests."""

from wsss_jax.models.vit import Vit


class SmallVit(Vit):
    """The package's transformer with everything that a test of backbones wants to meet."""

    patch: int = 14
    width: int = 32
    depth: int = 4
    head_width: int = 8
    pretrain_size: int = 70
    layer_scale: float = 0.1
    layer_decay: float = 0.75
