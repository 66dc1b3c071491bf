"""Lists of image ids, one per line."""

from collections import Counter
from pathlib import Path, PurePosixPath

from wsss_jax.errors import UserError
from wsss_jax.files import read_bytes


def read_list(path: Path) -> list[str]:
    """Reads the ids of a list file, which has one id or one `/JPEGImages/<id>.jpg …` per line.

    Raises:
      UserError: the file is missing, empty or not text, or it lists an id twice.
    """
    try:
        lines = read_bytes(path).decode().splitlines()
    except UnicodeDecodeError as error:
        raise UserError(
            f"expected a text file of ids at {path}, found other bytes: replace the file"
        ) from error
    ids = [_image_id(line.split()[0]) for line in lines if line.strip()]
    if not ids:
        raise UserError(f"expected ids in {path}, found an empty file: give one id per line")
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise UserError(f"expected each id once in {path}, found {twice[0]} twice: remove one")
    return ids


def _image_id(entry: str) -> str:
    path = PurePosixPath(entry)
    return path.stem if path.suffix.lower() in (".jpg", ".jpeg", ".png") else path.name
