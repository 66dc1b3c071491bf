"""The names of the foreground classes, either those of PASCAL VOC or those in a file."""

from pathlib import Path

from wsss_jax.errors import UserError

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
"""The foreground classes of PASCAL VOC in the order of the mask indices 1 to 20."""

_MOST = 254  # masks have 8 bits, where 0 is the background and 255 is ignored


def check_mask_classes(count: int) -> None:
    """Refuses more foreground classes than a mask can hold.

    Raises:
      UserError: `count` is above 254.
    """
    if count > _MOST:
        raise UserError(
            f"expected at most {_MOST} classes, because masks have 8 bits, found {count}: leave"
            " some out or merge them"
        )


def read_classes(value: str) -> tuple[str, ...]:
    """Returns the names of the foreground classes in the order of the mask indices from 1 on.

    Args:
      value: ``voc``, or the path of a text file with one name per line. If its first line is
        ``background``, that line is skipped.

    Raises:
      UserError: there is no such file, or it does not hold 1 to 254 different names.
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
