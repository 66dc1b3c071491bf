"""Reads a checkpoint of any program: a file in one of five formats, or a folder with one.

The format follows from the first bytes, never from the suffix. Nothing that a file contains is
executed, and memory is taken only after declared sizes were compared with the file's.

Checkpoints wrap the arrays of a network in dictionaries (``state_dict``, ``model``, ``teacher``)
and in prefixes of their names (``module.``, ``backbone.``). Where there is one way to unwrap them,
they are unwrapped, and `Checkpoint.notes` says how. Where there are several, `part` chooses.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsss_jax.data.formats.pickle_interpreter import ForbiddenName
from wsss_jax.data.formats.torch_pickle import Tensor
from wsss_jax.errors import UserError
from wsss_jax.weights.formats import archive, mxnet, npz, safetensors, torch_legacy, torch_zip
from wsss_jax.weights.formats.content import Content, as_array, check_table, check_total

WRAPPERS = (
    *("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network"),
    *("params", "weights", "teacher", "student", "backbone", "encoder"),
    *("model_ema", "state_dict_ema", "ema_state_dict", "params_ema", "ema"),
)
"""Names of dictionaries that hold a network; others hold options or the optimizer's state."""

PREFIXES = ("module.", "model.", "net.", "network.", "backbone.", "encoder.", "_orig_mod.")
"""Prefixes that wrappers of networks put before the names of all arrays."""

HEADS = (
    r"(head\w*|(?!_?conv_)\w+_heads?|(\w+_)?classifier\w*|_?fc(?![67]\b)\w*|cls_conv"
    r"|predictor\w*|projector\w*|prototypes\w*|f8_\d|gn8_\d|f9|(conv|bn)_fov2?"
    r"|edge|displacement|mean_shift|newly_added|edge_layers|dp_layers)\..+"
    r"|queue\w*|path_indices\d+|disp_target|foreground|context"
    r"|(params|batch_stats|prototypes)/(?!backbone/).+"
)
"""Names of layers after a backbone, of which none is a name of a backbone's own variables.

They are those of classifiers, of heads for segmentation and self-supervised training, and of the
methods of this package and their authors, also under our names. They may lack the prefix of the
backbone, and are left out where only the backbone is wanted.
"""

SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".params")
"""The usual suffixes of files with weights."""

_INDEX = ".index.json"
_SHARD = re.compile(r".*-\d{5}-of-(?!00001)\d{5}\.\w+")
HUGGING_FACE = ("model.safetensors", "pytorch_model.bin")
"""Files of a folder of Hugging Face, the better form first; sharded ones have an index."""

_LONGEST_NAME = 500
_LARGE = 1 << 26
"""Bytes of a file whose digest is kept. Reading them takes longer than a tick of a file's clock."""
_DIGESTS: dict[tuple[int, ...], str] = {}
_MOST_WRAPPERS = 8


@dataclass(frozen=True)
class Checkpoint:
    """The arrays of one network.

    Attributes:
      path: the file, or the index of a sharded checkpoint.
      format: ``npz``, ``wsss_jax`` (our ``weights.npz``, whose names are paths of variables),
        ``safetensors``, ``torch zip``, ``torch legacy`` or ``mxnet``.
      arrays: the arrays by name. Those of PyTorch may be views of one array.
      sha256: of the file; of a sharded checkpoint, that of the lines ``SHA256  NAME`` of its files.
      metadata: what the file says about itself.
      notes: what was unwrapped and what was left out, each in a few words.
    """

    path: Path
    format: str
    arrays: dict[str, np.ndarray]
    sha256: str
    metadata: Mapping[str, str]
    notes: tuple[str, ...] = ()


def read_checkpoint(path: Path, *, part: str = "") -> Checkpoint:
    """Returns the checkpoint at `path`.

    Args:
      path: a file, or a folder with one, such as Hugging Face's with ``model.safetensors``, also
        sharded.
      part: which of several networks to take, such as ``teacher``, or which submodule, such as
        ``backbone``; dots divide several steps.

    Raises:
      UserError: there is no such file, it is damaged, of another kind, holds several networks, or
        names anything that could run code.
    """
    path = _weights_file(path)
    try:
        if _is_index(path):
            form, content = _read_sharded(path)
        else:
            form, read = _reader(path)
            content = read(path)
        sha256 = digest(path)
        tree, notes = _unwrapped(content.tree, part)
        size = sum(file.stat().st_size for file in _files(path, content))
        arrays = _arrays(tree, size)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except OSError as error:
        raise UserError(
            f"expected weights at {path}, found a file that cannot be read"
            f" ({error.strerror or type(error).__name__}): check the path"
        ) from error
    except ForbiddenName as error:
        raise UserError(
            f"{path}: expected only tensors and plain values, found the name {_shown(error)}, and"
            " such a file can run code when it is opened: save the state dict alone, with the"
            " program that made the file"
        ) from error
    except Exception as error:  # a damaged file may fail in any way
        raise UserError(
            f"{path}: expected weights, found a file that is damaged or of another form"
            f" ({_shown(error) or type(error).__name__}): get it again"
        ) from error
    if any(name.startswith("params/backbone/") for name in arrays) and form == "npz":
        form = "wsss_jax"
    return Checkpoint(path, form, arrays, sha256, content.metadata, tuple(notes))


def digest(path: Path) -> str:
    """Returns the `Checkpoint.sha256` of a file or a folder, whose arrays are not read.

    Raises:
      UserError: there is no such file, or a folder does not hold one checkpoint.
      OSError: a file cannot be read.
    """
    path = _weights_file(path)
    if not _is_index(path):
        return _sha256(path)
    names = sorted(set(_shards(path).values()))
    lines = "".join(f"{_sha256(path.parent / name)}  {name}\n" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()


def holds_weights(path: Path) -> bool:
    """Returns whether `path` is a file, or a folder with files that may be weights."""
    if not path.is_dir():
        return path.is_file()
    return any(map(_may_hold_weights, path.iterdir()))


def _may_hold_weights(file: Path) -> bool:
    return _is_index(file) or file.suffix.lower() in SUFFIXES


def _is_index(path: Path) -> bool:
    return path.name.endswith(_INDEX)


def _weights_file(path: Path) -> Path:
    """Returns the one file with weights at `path`, which may be a folder."""
    if not path.exists():
        raise UserError(f"expected weights at {path}, found no such file")
    if not path.is_dir():
        if not path.is_file():
            raise UserError(f"expected a file with weights at {path}, found a device: name a file")
        if _SHARD.fullmatch(path.name):
            raise UserError(
                f"expected all weights of a network, found one of its shards, {path}: name the"
                " folder, or the index of the shards in it (such as model.safetensors.index.json)"
            )
        return path
    for name in HUGGING_FACE:
        for file in (path / (name + _INDEX), path / name):
            if file.is_file():
                return file
    found = sorted(filter(_may_hold_weights, path.iterdir()))
    if found and all(_SHARD.fullmatch(file.name) for file in found):
        raise UserError(
            f"expected the index of the shards in {path}, found only shards, such as"
            f" {found[0].name}: get the index, too (such as model.safetensors.index.json)"
        )
    if len(found) != 1:
        names = ", ".join(file.name for file in found[:8]) or "none"
        raise UserError(f"expected one file with weights in {path}, found {names}: name the file")
    return found[0]


def _reader(path: Path) -> tuple[str, Callable[[Path], Content]]:
    """Returns the name of the file's format and what reads it."""
    with open(path, "rb") as file:
        start = file.read(256)
    if start.startswith(archive.MAGIC):
        if torch_zip.is_checkpoint(path):
            return "torch zip", torch_zip.read
        return "npz", npz.read
    if torch_legacy.MAGIC.match(start):
        return "torch legacy", torch_legacy.read
    if start.startswith(mxnet.MAGIC):
        return "mxnet", mxnet.read
    if safetensors.is_checkpoint(start, path.stat().st_size):
        return "safetensors", safetensors.read
    if not start:
        raise UserError("expected weights, found an empty file: get it again")
    if start.startswith(b"version https://git-lfs"):
        raise UserError("expected weights, found a pointer of Git LFS: run git lfs pull")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise UserError("expected weights, found a web page: download the file itself")
    raise UserError(
        "expected weights (.safetensors, .npz, PyTorch's .pth or MXNet's .params), found something"
        f" else (it begins with {start[:8]!r}): name a file in one of these formats"
    )


def _shards(index: Path) -> dict[str, str]:
    """Returns the file of each array that an index of Hugging Face names."""
    try:
        check_table(index.stat().st_size, 0)
        places = json.loads(index.read_bytes())["weight_map"]
        if not places or any(not name or Path(name).name != name for name in places.values()):
            raise ValueError("expected files beside the index")
        files = sorted(set(places.values()))
        if missing := [name for name in files if not (index.parent / name).is_file()]:
            raise ValueError(f"expected a file {missing[0]!r} beside the index")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"expected the files of arrays in {index}, found something else ({_shown(error)}): get"
            " it again"
        ) from error
    return places


def _read_sharded(index: Path) -> tuple[str, Content]:
    """Reads the files that an index of Hugging Face names; returns their format, too."""
    places = _shards(index)
    names = sorted(set(places.values()))
    form, tree = "", dict[Any, Any]()
    for name in names:
        form, read = _reader(index.parent / name)
        tree |= read(index.parent / name).tree
    if set(tree) != set(places):
        raise ValueError("expected the arrays that the index names")
    return form, Content(tree, {"files": ", ".join(names)})


def _files(path: Path, content: Content) -> list[Path]:
    if not _is_index(path):
        return [path]
    return [path.parent / name for name in content.metadata["files"].split(", ")]


def _sha256(path: Path) -> str:
    """Returns the digest of a file; a large one is only read again when it has changed."""
    with open(path, "rb") as file:
        state = os.fstat(file.fileno())
        times = state.st_mtime_ns, state.st_ctime_ns
        key = state.st_dev, state.st_ino, state.st_size, *times
        if key in _DIGESTS:
            return _DIGESTS[key]
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if state.st_size >= _LARGE:
        _DIGESTS[key] = found
    return found


def _unwrapped(tree: Mapping[Any, Any], part: str) -> tuple[Mapping[str, Any], list[str]]:
    """Returns the arrays of one network by name, and how they were found."""
    steps = part.split(".") if part else []
    notes: list[str] = []
    holding = _with_arrays(tree)
    while (key := _wrapper(tree, holding, steps[0] if steps else "")) is not None:
        if len(notes) == _MOST_WRAPPERS:
            raise ValueError(f"expected at most {_MOST_WRAPPERS} wrappers")
        notes.append(f"took {_shown(key)}")
        tree = tree[key]
        if steps and key == steps[0]:
            del steps[0]
    left_out = [key for key, value in tree.items() if not _is_array(value)]
    if left_out:
        notes.append(f"left out {', '.join(_shown(key) for key in left_out[:8])}")
    found: Mapping[str, Any] = {k: value for k, value in tree.items() if _is_array(value)}
    for name in found:
        if not isinstance(name, str) or not name.isprintable() or len(name) > _LONGEST_NAME:
            raise ValueError(f"expected arrays with names, found {_shown(name)}")
    found, prefixes = without_prefixes(found, steps)
    notes += [f"removed the prefix {prefix}" for prefix in prefixes]
    if steps:
        names = sorted({str(key).partition(".")[0] for key in (*tree, *found)})
        raise UserError(
            f"expected a part {_shown(steps[0])} in the checkpoint, found"
            f" {', '.join(map(_shown, names[:12]))}: choose one of them"
        )
    if not found:
        raise UserError("expected arrays in the checkpoint, found none: name another file")
    return found, notes


def without_prefixes(
    found: Mapping[str, Any], steps: list[str]
) -> tuple[Mapping[str, Any], list[str]]:
    """Returns the arrays of a submodule, or all, without their prefixes, and these prefixes.

    Args:
      found: the arrays by name.
      steps: the names of the submodules one inside the other, of which those that are found are
        removed.
    """
    removed: list[str] = []
    while True:
        if steps and any(name.startswith(f"{steps[0]}.") for name in found):
            prefix = f"{steps.pop(0)}."
            found = {n.removeprefix(prefix): v for n, v in found.items() if n.startswith(prefix)}
        elif prefix := _common_prefix(found):
            plain = {name.removeprefix(prefix): value for name, value in found.items()}
            if len(plain) != len(found):
                break
            found = plain
        else:
            break
        removed.append(prefix)
    return found, removed


def _wrapper(tree: Mapping[Any, Any], holding: set[int], wanted: str) -> Any | None:
    """Returns the key of the dictionary that holds the network; None if `tree` itself does."""
    inner = [key for key, value in tree.items() if id(value) in holding]
    if wanted in inner:
        return wanted
    known = [key for key in inner if key in WRAPPERS]
    direct = [key for key, value in tree.items() if _is_array(value)]
    # A score beside the network may be a tensor too, but its name has no dots.
    weights = [key for key in direct if not known or "." in str(key)]
    choices = known or ([] if direct else inner)
    if not choices:
        return None
    if len(choices) > 1 or weights:
        shown = [*map(_shown, choices[:_MOST_WRAPPERS])]
        raise UserError(
            f"expected one network in the checkpoint, found {', '.join(shown)}"
            f"{' beside arrays' if weights else ''}: choose one, as"
            f" {' or '.join(f'FILE,part={name}' for name in shown)}"
        )
    return choices[0]


def _with_arrays(tree: Mapping[Any, Any]) -> set[int]:
    """Returns the identities of the dictionaries below `tree` that hold arrays at any depth.

    Dictionaries may be shared, or hold themselves; each is visited once.
    """
    holders: dict[int, list[int]] = {id(tree): []}  # of a dictionary: those in which it is
    waiting: list[Mapping[Any, Any]] = [tree]
    found: list[int] = []
    while waiting:
        one = waiting.pop()
        for value in one.values():
            if isinstance(value, dict):
                if id(value) not in holders:
                    holders[id(value)] = []
                    waiting.append(value)
                holders[id(value)].append(id(one))
            elif _is_array(value):
                found.append(id(one))
    holding: set[int] = set()
    while found:
        identity = found.pop()
        if identity not in holding:
            holding.add(identity)
            found += holders[identity]
    return holding


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _common_prefix(found: Mapping[str, Any]) -> str:
    """Returns the prefix that all names carry but those of heads; empty if there is none."""
    for prefix in PREFIXES:
        with_it = sum(name.startswith(prefix) for name in found)
        if with_it and all(name.startswith(prefix) or re.fullmatch(HEADS, name) for name in found):
            return prefix
    return ""


def _arrays(tree: Mapping[str, Any], size: int) -> dict[str, np.ndarray]:
    check_total([value.nbytes for value in tree.values()], size)
    return {name: as_array(value) for name, value in tree.items()}


def _shown(value: object) -> str:
    """Returns a text of a foreign file as part of a line."""
    text = " ".join(str(value)[:400].split())
    return "".join(c if c.isprintable() else "?" for c in text)[:200]
