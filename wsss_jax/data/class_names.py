"""Names of the foreground classes: those of PASCAL VOC, or a file's."""

from pathlib import Path

from wsss_jax.errors import UserError

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
"""Foreground classes in the order of the masks' indices 1 to 20."""

_MOST = 254  # a mask is 8 bits; 0 is the background and 255 ignored


def read_classes(value: str) -> tuple[str, ...]:
    """The foreground names in the order of the masks' indices, from 1.

    Args:
      value: ``voc``, or a text file of one name per line; a first line ``background`` is left out.

    Raises:
      UserError: no such file, or no names in it.
    """
    if value == "voc":
        return VOC_CLASSES
    path = Path(value).expanduser()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        found = error.strerror if isinstance(error, OSError) else "no text"
        raise UserError(
            f"expected class names in {path}, one per line, found {found}: check the path"
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    if names and names[0].lower() == "background":
        names = names[1:]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated or not 1 <= len(names) <= _MOST:
        found = f"{repeated[0]!r} more than once" if repeated else f"{len(names)} names"
        raise UserError(
            f"expected 1 to {_MOST} different class names in {path}, one per line, found {found}:"
            " correct the file"
        )
    return tuple(names)
