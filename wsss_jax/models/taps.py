"""Feature maps of one size, whatever strides a backbone taps."""

from jaxtyping import Array, Bool, Float

from wsss_jax.models.layers import valid_at
from wsss_jax.ops.resize import resize_bilinear, valid_size


def to_size(
    maps: Float[Array, "b h w c"],
    size: tuple[int, int],
    valid: Bool[Array, "b ih iw"] | None,
) -> Float[Array, "b oh ow c"]:
    """Maps at `size`, corners aligned.

    Args:
      maps: at a stride that is a power of two.
      size: (height, width) at another one.
      valid: the top-left rectangle of each image that is no padding; the same rectangle of the
        result is then that of the unpadded image.
    """
    if maps.shape[1:3] == size:
        return maps
    mask, out_mask = valid_at(valid, (maps.shape[1], maps.shape[2])), valid_at(valid, size)
    if mask is None or out_mask is None:
        return resize_bilinear(maps, size, align_corners=True)
    return resize_bilinear(
        maps,
        size,
        align_corners=True,
        in_size=valid_size(mask),
        out_size=valid_size(out_mask),
    )
