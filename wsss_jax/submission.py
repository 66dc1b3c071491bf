"""The command line that checks an archive for PASCAL VOC's evaluation server.

    python -m wsss_jax.submission ARCHIVE --list FILE [--images DIR]

`wsss_jax.data.formats.voc_submission` explains what is checked.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from wsss_jax import command_line
from wsss_jax.command_line import Parser
from wsss_jax.data.formats.id_lists import read_list
from wsss_jax.data.formats.voc_submission import COMPETITIONS, check_archive, image_size

_EXAMPLES = (
    (
        "the archive of a run, with the masks' sizes",
        "runs/seam/submit/submission.tar.gz \\\n"
        "        --list VOC2012/ImageSets/Segmentation/test.txt --images VOC2012/JPEGImages",
    ),
    (
        "an archive made without outside data, its sizes unchecked",
        "submission.tar.gz --list test.txt --competition comp5",
    ),
)


def main(argv: Sequence[str]) -> int:
    """Runs the command line `argv` (program name first) and returns the exit status."""
    return command_line.run(_parser(), argv, _run)


def _run(options: argparse.Namespace) -> int:
    folder = options.images
    ids = read_list(options.list, lambda name: folder and (folder / f"{name}.jpg").is_file())
    size_of = None if folder is None else lambda image_id: image_size(folder, image_id)
    check_archive(options.archive, ids, size_of, competition=options.competition)
    sizes = "" if options.images else " (sizes not checked: no --images)"
    print(f"{options.archive}: {len(ids)} masks, fit for the server{sizes}")
    return 0


def _parser() -> Parser:
    parser = Parser(
        "wsss_jax.submission",
        "Checks an archive for PASCAL VOC's evaluation server.",
        usage="ARCHIVE --list FILE [options]",
        examples=_EXAMPLES,
        statuses={0: "the server accepts the archive"},
        goes_on=False,
    )
    add = parser.add_argument_group("what is checked").add_argument
    add("archive", type=Path, metavar="ARCHIVE", help="the .tar.gz")
    add("--list", type=Path, required=True, metavar="FILE", help="the ids of the test set")
    add("--images", type=Path, metavar="DIR", help="the JPEGs, to check the masks' sizes")
    add(
        "--competition",
        **command_line.one_of(*COMPETITIONS),
        default="comp6",
        help="comp6 (the default), or comp5 without outside data such as ImageNet weights",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv))
