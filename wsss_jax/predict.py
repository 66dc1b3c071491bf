"""The command line that segments photographs with the network that a run has trained.

    python -m wsss_jax.predict --workdir runs/light PHOTOS --out RESULT
    python -m wsss_jax.predict --imagenet "tabby, tiger cat" photo.jpg

Network, scales and CRF are those of the run's last stage of type predict, such as `masks_val`. The
command writes ``masks/<name>.png`` (indices with VOC's palette), ``overlays/<name>.jpg`` for
viewing, and ``predict.json``, which records what they were made with and names the classes. The
same command resumes where it was interrupted, and redoes images that have changed. Damaged images
are named and left out (exit status 1). Mistakes are reported in one line (exit status 2).

With ``--imagenet``, an ImageNet classifier takes the place of a run; see
`wsss_jax.pipeline.imagenet_photos`.
"""

import argparse
import glob
import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from wsss_jax import command_line
from wsss_jax.command_line import Parser
from wsss_jax.data.formats.text import decoded
from wsss_jax.data.images import SUFFIXES, UNREAD
from wsss_jax.errors import UserError
from wsss_jax.host.host_memory import share_one_heap
from wsss_jax.pipeline import process

_EXAMPLES = (
    (
        "masks by the network of a run, with the settings of that run",
        "--workdir runs/light PHOTOS --out RESULT",
    ),
    (
        "several times as fast, and coarser",
        "--workdir runs/light PHOTOS \\\n        --out RESULT --scales 1 --no-crf",
    ),
    (
        "also the probabilities of classes, and polygons for annotation programs",
        "--workdir runs/light 'trip/*.jpg' \\\n        --out RESULT --scores --polygons",
    ),
    (
        "two classes of ImageNet, without any training (--imagenet list dog shows some)",
        '--imagenet "tabby, dog" photo.jpg',
    ),
)

_LIST = "list"


def main(argv: Sequence[str]) -> int:
    """Runs the command line `argv` (program name first) and returns the exit status.

    It is that of `command_line.run`, or 1 if damaged images were left out.
    """
    return command_line.run(_parser(), argv, _run)


def _run(options: argparse.Namespace) -> int:
    named = [*options.photos, *options.images]
    if options.imagenet == _LIST:
        from wsss_jax.weights.imagenet_names import listed

        words = (word.strip() for text in named for word in re.split("[,;]", text))
        print("\n".join(listed([*filter(None, words)])))
        return 0
    if options.imagenet and _is_photograph(options.imagenet, bool(named)):
        # --imagenet without a value takes the photograph behind it for one.
        named, options.imagenet = [options.imagenet, *named], ""
    photos = list(_paths(named))
    if not photos:
        told = f", and {options.imagenet!r} is taken for classes" if options.imagenet else ""
        raise UserError(
            f"PHOTOS is missing{told}: images, folders, patterns such as 'trip/*.jpg', or -"
        )
    if options.polygons is not None and not 0 <= options.polygons < math.inf:
        raise UserError(
            f"expected --polygons of 0 or more pixels, found {options.polygons:g}: change it"
        )
    if (options.imagenet is None) == (options.workdir is None):
        found = "neither" if options.imagenet is None else "both"
        raise UserError(f"expected --workdir DIR or --imagenet [NAMES], found {found}: give one")
    process.check_addresses()
    share_one_heap()
    process.compilation_cache()
    count, skipped = (
        _imagenet(options, photos) if options.workdir is None else _of_run(options, photos)
    )
    for message in skipped:
        print(f"left out: {message}", file=sys.stderr)
    for line in _results(options, count):
        print(line)
    return 1 if skipped else 0


def _results(options: argparse.Namespace, count: int) -> Iterator[str]:
    """Yields lines that name all files and folders of the results."""
    out = options.out
    masks = "1 mask" if count == 1 else f"{count} masks"
    maps = f", maps in {out / 'maps'}" if options.workdir is None else ""
    yield f"{masks} in {out / 'masks'}, overlays in {out / 'overlays'}{maps}"
    if options.scores or options.workdir is None:
        yield f"scores in {out / 'scores.json'}, of each photograph in {out / 'scores'}"
    if options.polygons is not None:
        yield f"polygons in {out / 'polygons.json'}"
    yield f"classes and settings in {out / 'predict.json'}"


def _of_run(options: argparse.Namespace, photos: list[Path]) -> tuple[int, list[str]]:
    # These imports start JAX.
    from wsss_jax.pipeline.finished_run import find_network
    from wsss_jax.pipeline.photo_folder import segment
    from wsss_jax.stages.predict import Predict

    changes: dict[str, Any] = {"workers": options.workers, "known_labels": bool(options.labels)}
    if options.scales:
        changes["scales"] = options.scales
    if options.crf is not None:
        changes["crf"] = options.crf
    network = find_network(options.workdir, Predict, options.stage, options.classes, **changes)
    return segment(network, photos, options.out, options.labels, options.scores, options.polygons)


def _imagenet(options: argparse.Namespace, photos: list[Path]) -> tuple[int, list[str]]:
    of_runs = {"--stage": options.stage, "--classes": options.classes, "--labels": options.labels}
    of_runs |= {"--scales": options.scales, "--polygons": options.polygons is not None}
    for name, given in of_runs.items():
        if given:
            raise UserError(f"{name} needs the network of a run (--workdir): remove it")
    from wsss_jax.pipeline.imagenet_photos import segment_imagenet

    crf = options.crf is not False
    return segment_imagenet(options.imagenet, photos, options.out, crf, options.workers)


def _paths(named: Sequence[str]) -> Iterator[Path]:
    """Yields the files and folders that arguments name."""
    for text in named:
        if text == "-":
            yield from _listed()
            continue
        path = Path(text).expanduser()
        if path.exists() or not glob.has_magic(text):
            yield path
            continue
        found = sorted(glob.glob(str(path), recursive=True))
        if not found:
            raise UserError(f"expected photographs like {text!r}, found none: check the pattern")
        yield from map(Path, found)


def _listed() -> Iterator[Path]:
    """Yields the paths of a list on standard input, in any encoding, with any ends of lines."""
    text = decoded(sys.stdin.buffer.read(), "a list of photographs", "on standard input")
    for line in filter(str.strip, re.split(r"[\r\n]+", text)):
        # A name may end with a blank, but mostly blanks are the list's.
        yield Path(line) if Path(line).exists() else Path(line.strip())


def _is_photograph(text: str, others: bool) -> bool:
    """Returns whether the value of --imagenet names photographs; `others` says if there are more.

    A folder may be called like a class, but no class has a slash or is like a pattern.
    """
    if text == "-" or "/" in text or glob.has_magic(text):
        return True
    return text.lower().endswith((*SUFFIXES, *UNREAD)) or (not others and Path(text).exists())


def _parser() -> Parser:
    parser = Parser(
        "wsss_jax.predict",
        "Segments photographs with a trained network, or with an ImageNet classifier. The same\n"
        "command resumes where it was interrupted, and redoes images that have changed.",
        usage="--workdir DIR PHOTOS [--out DIR] [options]",
        examples=_EXAMPLES,
        statuses={1: "damaged images were left out; they are named"},
    )
    add = parser.add_argument_group("photographs and results").add_argument
    add(
        "photos",
        nargs="*",
        metavar="PHOTOS",
        help="images, folders, quoted patterns, or - for a list on standard input (docs/data.md)",
    )
    add("--images", action="append", default=[], metavar="PATH", help="the same as PHOTOS")
    add(
        "--out",
        type=Path,
        default=Path("predictions"),
        metavar="DIR",
        help="where masks/ and overlays/ go (predictions)",
    )
    add("--scores", action="store_true", help="write scores.json, the probabilities of classes")
    add(
        "--polygons",
        type=command_line.number,
        nargs="?",
        const=0.0,
        metavar="PIXELS",
        help="write polygons.json (COCO), exact, or within so many pixels of the masks",
    )
    network = parser.add_argument_group("network")
    command_line.add_run_options(network)
    network.add_argument(
        "--imagenet",
        nargs="?",
        const="",
        metavar="NAMES",
        help="classes of ImageNet in place of a run's (the best three of each photograph); list"
        " shows all, and list WORDS those that are like the words",
    )
    add = parser.add_argument_group("how masks are made").add_argument
    add(
        "--labels",
        type=command_line.names,
        default=(),
        metavar="NAME,NAME",
        help="the only classes that masks may show",
    )
    add(
        "--crf",
        action=argparse.BooleanOptionalAction,
        help="with or without the final dense CRF, regardless of the stage",
    )
    add(
        "--workers",
        type=command_line.whole_number,
        default=0,
        metavar="N",
        help="processes for the CRF (0: one for each core)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv))
