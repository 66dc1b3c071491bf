"""The command line that makes data sets for training, and checks them.

    python -m wsss_jax.prepare folder PHOTOS --out mine
    python -m wsss_jax.prepare verify mine

The first tells what the data set will be before it writes anything, and ends with exit status 2
and one message about everything that is wrong with the source. Nothing is downloaded. The same
command goes on where it was interrupted.
"""

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from wsss_jax import command_line
from wsss_jax.command_line import Parser
from wsss_jax.errors import UserError, first

_MODULE = "wsss_jax.prepare"


def main(argv: Sequence[str]) -> int:
    """Runs the command line `argv` (program name first) and returns the exit status."""
    return command_line.run_one_of(_COMMANDS, _parser, argv)


def _parser() -> Parser:
    """Returns the parser that names the commands."""
    purpose = "Makes data sets for training of photographs and labels as they are, and checks them."
    return command_line.overview(_MODULE, purpose, _COMMANDS, _EXAMPLES)


def _places(parser: Parser, source: str) -> None:
    add = parser.add_argument
    add("source", type=Path, metavar="SOURCE", help=source)
    add("--out", type=Path, metavar="DIR", help="where the data set goes; --dry_run needs none")
    add("--dry_run", action="store_true", help="show the summary and write nothing")
    add("--copy", action="store_true", help="copy photographs instead of linking them")


def _check_place(options: argparse.Namespace) -> None:
    if options.out is None and not options.dry_run:
        raise UserError("--out is missing: where the data set goes; only --dry_run needs none")


def _folder_parser() -> Parser:
    parser = Parser(
        f"{_MODULE} folder",
        "Makes a data set of a folder of photographs, in any nesting, and of labels as\n"
        "spreadsheets and annotation programs write them: CSV, TSV, XLSX, JSON, PASCAL VOC, COCO,\n"
        "labelme, CVAT, Label Studio, Roboflow; or of the names of folders and files.",
        usage="SOURCE --out DIR [options]",
        examples=[
            ("what would be done with labels that are found in the folder", "PHOTOS --dry_run"),
            ("a data set of them", "PHOTOS --out mine"),
            ("labels of a spreadsheet elsewhere", "PHOTOS --out mine --labels labels.xlsx"),
            ("names such as Cat_001.jpg", "PHOTOS --out mine --pattern '{class}_{}.jpg'"),
            (
                "with masks of 0 and 255 for some photographs",
                "PHOTOS --out mine --masks MASKS --foreground 255",
            ),
        ],
    )
    _places(parser, "a folder with photographs, also in subfolders")
    add = parser.add_argument_group("labels").add_argument
    add(
        "--labels",
        default="",
        metavar="PATH",
        help="a label file, a folder of them, or the word folders for names of folders (what is"
        " found in SOURCE)",
    )
    add(
        "--pattern",
        default="",
        metavar="TEXT",
        help="how photographs are named: {class} is the class, {} anything",
    )
    add(
        "--label_column",
        type=command_line.names,
        default=(),
        metavar="NAME,NAME",
        help="the columns of classes in a table",
    )
    add(
        "--classes",
        default="",
        metavar="FILE",
        help="names of classes, one per line, in the order of mask indices (those of the labels)",
    )
    add("--merge", action="store_true", help="count likely misspellings as the class they are like")
    add("--yes", action="store_true", help="keep classes that may be mistakes")
    add(
        "--unlabeled",
        default="refuse",
        help="what becomes of photographs without a label (refuse)",
        **command_line.one_of("refuse", "background", "leave_out"),
    )
    add = parser.add_argument_group("photographs and masks").add_argument
    add("--skip_damaged", action="store_true", help="leave out photographs that cannot be read")
    add("--masks", type=Path, metavar="DIR", help="masks named like the photographs, or some")
    add(
        "--foreground",
        type=command_line.whole_number,
        default=0,
        metavar="N",
        help="the value that marks the object in masks of two values, such as 255",
    )
    add = parser.add_argument_group("splits").add_argument
    add(
        "--val",
        type=command_line.number,
        metavar="SHARE",
        help="the share of val, with each class in the same share (0.2, or folders named so)",
    )
    add("--val_list", type=Path, metavar="FILE", help="the photographs of val, one per line")
    add("--seed", type=command_line.whole_number, default=0, metavar="N", help="for the splits")
    return parser


def _folder(options: argparse.Namespace) -> int:
    from wsss_jax.preparing.data_set import write
    from wsss_jax.preparing.folder import Options, read_folder
    from wsss_jax.preparing.summary import summary

    _check_place(options)
    chosen = Options(
        labels=options.labels,
        pattern=options.pattern,
        columns=options.label_column,
        classes=options.classes,
        merge=options.merge,
        keep=options.yes,
        masks=options.masks,
        foreground=options.foreground,
        val=options.val,
        val_list=options.val_list,
        seed=options.seed,
        unlabeled=options.unlabeled,
        skip_damaged=options.skip_damaged,
    )
    data, problems, what = read_folder(options.source, chosen, options.out)
    print(summary(data, what), flush=True)
    problems.check("photographs and labels that fit together")
    if not data.splits.get("train"):
        raise UserError("expected photographs for train, found none: make --val smaller")
    if options.out is None or options.dry_run:
        print("nothing is written because of --dry_run")
        return 0
    done = write(data, options.out, options.copy)
    _tell_next(options.out, done, _RECIPE, *_fitting(len(data.splits["train"])))
    return 0


def _voc_parser() -> Parser:
    parser = Parser(
        f"{_MODULE} voc",
        "Makes a data set of PASCAL VOC 2012 or 2007, from the official archives or the unpacked\n"
        "devkit. With the masks of SBD, it has the list train_aug of 10,582 images.",
        usage="SOURCE --out DIR [options]",
        examples=[
            (
                "a folder with the archives, and SBD unpacked beside it",
                "VOC --out voc12 --sbd SBD/dataset",
            ),
            (
                "masks of SBD as PNGs, and the field's label file",
                "VOCdevkit --out voc12 --sbd SegmentationClassAug \\\n"
                "        --labels cls_labels.npy",
            ),
            ("VOC 2007", "VOCdevkit --out voc07 --year 2007"),
        ],
    )
    _places(parser, "VOCdevkit, VOC2012, an archive, or a folder with archives")
    add = parser.add_argument
    add("--sbd", type=Path, metavar="DIR", help="SBD's dataset, or SegmentationClassAug")
    add("--year", help="the year, if SOURCE has both", **command_line.one_of("2012", "2007"))
    add("--labels", type=Path, metavar="FILE", help="image-level labels (VOC's annotations)")
    add("--partial", action="store_true", help="accept lists of unusual lengths")
    return parser


def _voc(options: argparse.Namespace) -> int:
    from wsss_jax.preparing.voc import read_voc, write_voc

    _check_place(options)
    chosen = {name: getattr(options, name) for name in ("sbd", "year", "labels", "partial")}
    data, problems = read_voc(options.source, **chosen)
    print(f"VOC{data.year} of {data.source}")
    for name, ids in data.lists.items():
        print(f"  {name:<10} {len(ids):,} ({first(ids, 3)})")
    print(f"  masks of SBD {len(data.augmented):,}; labels of {data.labels or 'Annotations'}")
    problems.check(f"all files of VOC{data.year}")
    if options.out is None or options.dry_run:
        print("nothing is written because of --dry_run")
        return 0
    done = write_voc(data, options.out, options.copy, chosen)
    split = () if "train_aug" in data.lists else ("--config.train.split=train",)
    _tell_next(options.out, done, "seam_voc_lite0", *split)
    return 0


def _coco14_parser() -> Parser:
    parser = Parser(
        f"{_MODULE} coco14",
        "Makes the data set COCO-14 of weakly supervised methods: the images of MS COCO 2014 that\n"
        "have an object, with labels and masks of 80 classes. Smaller objects cover larger ones,\n"
        "as in the masks that are usual in the field.",
        usage="SOURCE --out DIR [options]",
        examples=[
            ("train2014, val2014 and annotations are in COCO", "COCO --out coco14"),
            ("pixels of crowds do not count", "COCO --out coco14 --crowds ignore"),
        ],
    )
    _places(parser, "the folder with train2014, val2014 and annotations")
    add = parser.add_argument
    add(
        "--crowds",
        default="class",
        help="what the pixels of crowds are (class)",
        **command_line.one_of("class", "ignore"),
    )
    add("--partial", action="store_true", help="accept other numbers of images and classes")
    return parser


def _coco14(options: argparse.Namespace) -> int:
    from wsss_jax.preparing.coco14 import read_coco14
    from wsss_jax.preparing.data_set import write
    from wsss_jax.preparing.summary import summary

    _check_place(options)
    data, problems = read_coco14(options.source, options.crowds, options.partial)
    what = f"objects of COCO, crowds as {options.crowds}"
    print(summary(data, what), flush=True)
    problems.check("images and annotations of COCO 2014")
    if options.out is None or options.dry_run:
        print("nothing is written because of --dry_run")
        return 0
    done = write(data, options.out, options.copy)
    _tell_next(options.out, done, "cam_voc_light", "--config.train.split=train")
    return 0


def _verify_parser() -> Parser:
    parser = Parser(
        f"{_MODULE} verify",
        "Opens every file of a data set and tells what is wrong with it or may be: files that\n"
        "cannot be read, labels and masks that disagree, equal and similar photographs, masks in\n"
        "unsuitable encodings, classes that are rare, absent or everywhere. It writes a page to\n"
        "look at, with counts and pictures.",
        usage="DIR [options]",
        examples=[
            ("a prepared folder", "mine"),
            ("VOC with a label file", "VOCdevkit/VOC2012 --labels cls_labels.npy --page voc.html"),
        ],
        statuses={1: "something must be mended; its line begins with !"},
        goes_on=False,
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="a prepared folder, or one laid out like VOC")
    add("--page", type=Path, metavar="FILE", help="where the page goes (DIR/verify.html)")
    add("--labels", default="", metavar="FILE", help="as the setting data.labels")
    add("--masks", default="", metavar="NAME", help="as the setting data.masks")
    add("--classes", default="", metavar="FILE", help="as the setting data.classes")
    return parser


def _verify(options: argparse.Namespace) -> int:
    from wsss_jax.files import atomic_write
    from wsss_jax.preparing.verified import lines
    from wsss_jax.preparing.verify import verify
    from wsss_jax.preparing.verify_page import verify_page

    data = verify(options.folder, options.labels, options.masks, options.classes)
    for line in lines(data):
        print(line)
    page = options.page or options.folder / "verify.html"
    with atomic_write(page) as file:
        file.write(verify_page(data).encode())
    print(f"page: {page}")
    return 1 if any(one.mend for one in data.findings) else 0


def _tell_next(out: Path, done: bool, recipe: str, *options: str) -> None:
    print(f"\n{out} {'is ready' if done else 'was ready before'}. Next:")
    workdir = shlex.quote(f"runs/{out.resolve().name}")
    print(f"  python -m wsss_jax.prepare verify {shlex.quote(str(out))}")
    lines = [f"  python -m wsss_jax.main --config {recipe} --workdir {workdir}"]
    for option in map(shlex.quote, (f"--config.data.root={out}", *options)):
        if len(lines) == 1 or len(lines[-1]) + len(option) > _WIDTH:
            lines.append(f"      {option}")
        else:
            lines[-1] += f" {option}"
    print(" \\\n".join(lines))


_WIDTH = 96
_RECIPE = "seam_own_light"
_SMALL_BATCH = 4


def _fitting(images: int) -> list[str]:
    """Returns the settings of the recipe that a small number of images needs."""
    from wsss_jax.pipeline import graph
    from wsss_jax.pipeline.config import load_config
    from wsss_jax.stages.train import Train

    nodes = graph.stages(load_config(_RECIPE))
    trainings = {node.name: node.stage for node in nodes if isinstance(node.stage, Train)}
    smaller: dict[str, int] = {}
    longer: dict[str, int] = {}
    for name, training in trainings.items():
        if images < training.batch_size:
            smaller[name] = min(images, _SMALL_BATCH)
            training = dataclasses.replace(training, batch_size=smaller[name])
        if (epochs := training.enough_epochs(images)) > training.epochs:
            longer[name] = epochs
    return [
        *(f"--config.{name}.batch_size={batch}" for name, batch in smaller.items()),
        *(f"--config.{name}.epochs={epochs}" for name, epochs in longer.items()),
    ]


_COMMANDS: Mapping[str, command_line.Command] = {
    "folder": (_folder_parser, _folder),
    "voc": (_voc_parser, _voc),
    "coco14": (_coco14_parser, _coco14),
    "verify": (_verify_parser, _verify),
}
_EXAMPLES = [
    ("photographs of your own", "folder PHOTOS --out mine"),
    ("PASCAL VOC with SBD", "voc VOCdevkit --out voc12 --sbd SBD/dataset"),
    ("MS COCO 2014", "coco14 COCO --out coco14"),
    ("what is in a data set, and whether it is sound", "verify mine"),
]

if __name__ == "__main__":
    sys.exit(main(sys.argv))
