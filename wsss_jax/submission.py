"""Command line: checks an archive for PASCAL VOC's evaluation server.

    python -m wsss_jax.submission ARCHIVE --list FILE [--images DIR]

What is checked is told in `wsss_jax.data.formats.voc_submission`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from wsss_jax.data.formats.id_lists import read_list
from wsss_jax.data.formats.voc_submission import COMPETITIONS, check_archive, image_size
from wsss_jax.errors import UserError


def main(arguments: Sequence[str]) -> int:
    """Checks an archive; exit status 0, or 2 with one line about what is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m wsss_jax.submission", description="Check an archive for VOC's server."
    )
    add = parser.add_argument
    add("archive", type=Path, metavar="ARCHIVE", help="the .tar.gz")
    add("--list", type=Path, required=True, metavar="FILE", help="ids of the test set, one a line")
    add("--images", type=Path, metavar="DIR", help="the JPEGs, to check the masks' sizes")
    add("--competition", choices=COMPETITIONS, default="comp6")
    options = parser.parse_args(arguments)
    try:
        ids = read_list(options.list)
        folder = options.images
        size_of = None if folder is None else lambda image_id: image_size(folder, image_id)
        check_archive(options.archive, ids, size_of, competition=options.competition)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    sizes = "" if options.images else " (sizes not checked: no --images)"
    print(f"{options.archive}: {len(ids)} masks, fit for the server{sizes}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
