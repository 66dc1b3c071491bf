"""Feature maps of one stride, whatever strides a backbone taps."""

from jaxtyping import Array, Bool, Float

from wsss_jax.models.layers import downsample_valid
from wsss_jax.ops.resize import resize_bilinear, valid_size


def map_size(image_size: tuple[int, int], stride: int) -> tuple[int, int]:
    """(height, width) of the maps of `stride` of an image: the last pixels may be parts of one."""
    return -(-image_size[0] // stride), -(-image_size[1] // stride)


def to_stride(
    maps: Float[Array, "b h w c"],
    stride: int,
    new_stride: int,
    size: tuple[int, int],
    valid: Bool[Array, "b ih iw"] | None,
) -> Float[Array, "b oh ow c"]:
    """Maps of `stride` at `new_stride`, corners aligned.

    Args:
      maps: of `stride`; 1 for the images themselves.
      stride: image pixels per pixel of `maps`.
      new_stride: image pixels per pixel of the result.
      size: (height, width) of the result, see `map_size`.
      valid: the top-left rectangle of each image that is no padding; the same rectangle of the
        result is then that of the unpadded image.
    """
    if stride == new_stride:
        return maps
    mask, new_mask = downsample_valid(valid, stride), downsample_valid(valid, new_stride)
    if mask is None or new_mask is None:
        return resize_bilinear(maps, size, align_corners=True)
    return resize_bilinear(
        maps,
        size,
        align_corners=True,
        in_size=valid_size(mask),
        out_size=valid_size(new_mask),
    )
