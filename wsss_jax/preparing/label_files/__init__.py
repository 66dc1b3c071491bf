"""Reads image-level labels as spreadsheets and annotation programs export them."""

from typing import NamedTuple


class Mention(NamedTuple):
    """What a label file says of an image.

    Attributes:
      image: the image as the file names it.
      classes: the classes as the file spells them; none if the image has no object.
      where: the file and the row or image, for messages.
      folder: the folder of the label file below the source, or "".
      other: the image under another name, if there is none of the first.
    """

    image: str
    classes: tuple[str, ...]
    where: str
    folder: str = ""
    other: str = ""
