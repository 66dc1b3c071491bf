"""Reads compiled programs in XLA's text form: collectives, and loops with their rounds.

XLA's own analysis counts the body of a loop once, however often it runs, and has no collectives.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping

_COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_HEADER = re.compile(r"^(ENTRY )?%?(?P<name>[\w.\-]+) \(.*\) -> .*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?(?P<name>[\w.\-]+) = (?P<rest>.*)$")
_ARRAY = re.compile(
    r"\b(?P<dtype>pred|token|[a-z]+\d+\w*)\[(?P<shape>[\d,]*)\](?:\{[^}]*S\((?P<space>\d+)\)[^}]*\})?"
)
_CALLED = re.compile(
    r"\b(?:calls|to_apply|(?:true|false|branch)_computations?)=(?:\{([^}]*)\}|%?([\w.\-]+))"
)
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("partition-id", "replica-id", "while", "conditional", "call", "optimization-barrier"),
}
_MOVES = {
    *("broadcast", "reshape", "transpose", "copy", "convert", "slice", "concatenate", "pad"),
    *("dynamic-slice", "dynamic-update-slice", "gather", "scatter", "reverse", "iota"),
    *("reduce-window", "select-and-scatter", "fusion", "rng-bit-generator", "custom-call"),
    *("copy-start", "copy-done", "slice-start", "slice-done"),
}


@dataclasses.dataclass(frozen=True)
class Instruction:
    """An instruction: its name, type, opcode, the names of its operands, and the rest of it."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str

    @property
    def bytes(self) -> int:
        """The bytes of its result."""
        return sum(_sizes(self.type))

    @property
    def elements(self) -> int:
        """The number of values in its result."""
        return sum(math.prod(shape) for _, shape in arrays(self.type))

    def called(self) -> tuple[str, ...]:
        """Returns the names of the computations that it calls, except for those of loops."""
        found = (many or one for many, one in _CALLED.findall(self.attributes))
        return tuple(name.strip(" %") for names in found for name in names.split(","))


@dataclasses.dataclass(frozen=True)
class Collective:
    """Collectives of one kind in a program.

    Attributes:
      kind: ``all-reduce``, for example.
      count: how often one is executed.
      bytes: the bytes of all of their results, on each device.
    """

    kind: str
    count: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Module:
    """A compiled program for one device, as text in XLA's form.

    Attributes:
      computations: the instructions of each computation by name.
      entry: the name of the computation that runs.
      devices: the number of devices that run it together.
    """

    computations: Mapping[str, Mapping[str, Instruction]]
    entry: str
    devices: int

    @classmethod
    def parse(cls, text: str) -> "Module":
        """Reads what `jax.stages.Compiled.as_text` returns.

        Raises:
          ValueError: the text has no entry.
        """
        computations: dict[str, dict[str, Instruction]] = {}
        entry, current = "", None
        for line in text.splitlines():
            if header := _HEADER.match(line):
                current = computations.setdefault(header["name"], {})
                entry = header["name"] if line.startswith("ENTRY") else entry
            elif line.startswith("}"):
                current = None
            elif current is not None and (found := _INSTRUCTION.match(line)):
                current[found["name"]] = _instruction(found["name"], found["rest"])
        if not entry:
            raise ValueError("expected a module of HLO with an ENTRY, found none")
        counts = re.findall(
            r"\b(?:num_partitions|replica_count)=(\d+)", text.lstrip().partition("\n")[0]
        )
        return cls(computations, entry, math.prod(map(int, counts)))

    @functools.cached_property
    def runs(self) -> Mapping[str, int]:
        """How often each computation runs that is not a part of an instruction, by name.

        Loops whose number of rounds is unknown run once; see `unknown_loops`.
        """
        return self._runs(lambda loop: self._rounds(loop) or 1)

    def _runs(
        self, rounds: Callable[[Instruction], int], every_branch: bool = True
    ) -> Mapping[str, int]:
        found: dict[str, int] = {}

        def visit(name: str, times: int) -> None:
            found[name] = found.get(name, 0) + times
            for one in self.computations[name].values():
                if one.opcode == "while":
                    visit(_attribute(one, "body"), times * rounds(one))
                elif one.opcode in ("call", "conditional", "async-start"):
                    every = every_branch or one.opcode != "conditional"
                    for called in one.called() if every else one.called()[:1]:
                        visit(called, times)

        visit(self.entry, 1)
        return found

    @property
    def unknown_loops(self) -> int:
        """The number of loops of which the text does not tell how many rounds they have."""
        loops = (one for one in self._executed() if one[0].opcode == "while")
        return sum(self._rounds(one) is None for one, _ in loops)

    def collectives(self) -> tuple[Collective, ...]:
        """Returns the collectives by kind, including those of every round of a loop."""
        counts: dict[str, list[int]] = {}
        for one, times in self._executed():
            kind = one.opcode.removesuffix("-start")
            if kind in _COLLECTIVES:
                found = counts.setdefault(kind, [0, 0])
                found[0] += times
                found[1] += times * self._result_bytes(one)
        return tuple(Collective(kind, *counts[kind]) for kind in sorted(counts))

    def work(self) -> tuple[int, int]:
        """Returns (arithmetic, bytes) of an execution, by a simpler count than XLA's.

        It counts products, convolutions and otherwise one operation per value; and all operands and
        results.
        """
        return self._work(self.runs)

    def loop_factors(self) -> tuple[float, float]:
        """Returns the factors by which loops raise (arithmetic, bytes) over one round of each.

        Both are 1 without loops. They come from the count of `work`.
        """
        once = self._work(self._runs(lambda loop: 1))
        flops, moved = (b / a if a else 1.0 for a, b in zip(once, self.work(), strict=True))
        return flops, moved

    def _work(self, runs: Mapping[str, int]) -> tuple[int, int]:
        flops = moved = 0
        for name, times in runs.items():
            for one in self.computations[name].values():
                flops += times * self._flops(name, one)
                moved += times * self._bytes(name, one)
        return flops, moved

    def library_flops(self) -> int:
        """Returns the floating-point operations of calls of cuDNN and cuBLAS.

        To XLA's own analysis these are calls of something unknown.
        """
        return sum(
            times * _library_flops(one, [self.computations[name].get(o) for o in one.operands])
            for name, times in self.runs.items()
            for one in self.computations[name].values()
            if one.opcode == "custom-call"
        )

    def launches(self) -> int:
        """Returns the number of programs that a device starts for one execution.

        Of a conditional, the first branch counts, as in `cycles`.
        """
        runs = self._runs(lambda loop: self._rounds(loop) or 1, every_branch=False)
        return sum(
            times * sum(_starts(one) for one in self.computations[name].values())
            for name, times in runs.items()
        )

    def off_chip_share(self) -> float:
        """Returns the share of the bytes that are accessed in the memory outside the chip (HBM).

        A TPU's compiler also places arrays in the memory of the chip itself, which the types say.
        """
        total = outside = 0
        for name, times in self.runs.items():
            for one in self.computations[name].values():
                total += times * self._bytes(name, one)
                outside += times * self._bytes(name, one, on_chip=False)
        return outside / total if total else 1.0

    def cycles(self) -> int:
        """Returns the cycles that the compiler itself expects, which only a TPU's compiler states.

        They include what a roofline leaves out, such as copies between layouts and products that do
        not fill the matrix units, but not the time of exchanges between devices. Of a conditional,
        the first branch counts, which in `wsss_jax.losses.present_classes` is the usual one.
        """
        runs = self._runs(lambda loop: self._rounds(loop) or 1, every_branch=False)
        return sum(
            int(found[1]) * times
            for name, times in runs.items()
            for one in self.computations[name].values()
            if (found := re.search(r'"estimated_cycles":"(\d+)"', one.attributes))
        )

    def _executed(self) -> Iterator[tuple[Instruction, int]]:
        for name, times in self.runs.items():
            for one in self.computations[name].values():
                yield one, times

    def _rounds(self, loop: Instruction) -> int | None:
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
        if known:
            return int(known[1])
        # Without the attribute, as on TPUs: JAX's loops count from 0 and compare with a constant.
        condition = self.computations.get(_attribute(loop, "condition"), {})
        limits = [
            int(one.operands[0])
            for one in condition.values()
            if one.opcode == "constant" and one.type.startswith("s32[]")
        ]
        directions = [
            direction
            for one in condition.values()
            for inner in (one, *self._inside(one))
            for direction in re.findall(r"direction=(\w+)", inner.attributes)
        ]
        return limits[0] if len(limits) == 1 and directions == ["LT"] else None

    def _inside(self, one: Instruction) -> Iterator[Instruction]:
        """Yields the instructions of a fusion, including those of fusions in it."""
        if one.opcode == "fusion":
            for name in one.called():
                for inner in self.computations.get(name, {}).values():
                    yield inner
                    yield from self._inside(inner)

    def _result_bytes(self, one: Instruction) -> int:
        if not one.opcode.endswith("-start") or one.opcode == "all-reduce-start":
            return one.bytes
        # The type of the start of an asynchronous collective lists its operands and then results.
        return sum(_sizes(one.type)[len(one.operands) : 2 * len(one.operands)])

    def _bytes(self, computation: str, one: Instruction, on_chip: bool = True) -> int:
        if one.opcode in _FREE or one.opcode.endswith("-done"):
            return 0
        if one.opcode in ("copy-start", "slice-start"):  # their types list source and destination
            moved = min(_sizes(one.type)[:2])
            return sum(min(moved, size) for size in _sizes(one.type, on_chip)[:2])
        types = [one.type]
        if not one.opcode.endswith("-start"):  # collectives, whose types also list the operands
            known = self.computations[computation]
            types += [known[name].type for name in one.operands if name in known]
        return sum(sum(_sizes(text, on_chip)) for text in types)

    def _flops(self, computation: str, one: Instruction) -> int:
        if one.opcode == "fusion":
            return sum(
                self._flops(name, inner)
                for name in one.called()
                for inner in self.computations.get(name, {}).values()
            )
        known = self.computations[computation]
        operands = [known[name] for name in one.operands if name in known]
        if one.opcode in ("dot", "convolution") and len(operands) == 2:
            return 2 * one.elements * _contracted(one, *operands)
        if one.opcode == "reduce":
            return sum(operand.elements for operand in operands[: len(operands) // 2])
        return 0 if one.opcode in _FREE | _MOVES else one.elements


def arrays(text: str) -> list[tuple[str, tuple[int, ...]]]:
    """Returns (dtype, shape) of the arrays in a type such as ``(f32[2,3]{1,0}, s32[])``."""
    return [
        (found["dtype"], tuple(int(side) for side in found["shape"].split(",") if side))
        for found in _ARRAY.finditer(text)
    ]


def _sizes(text: str, on_chip: bool = True) -> list[int]:
    """Returns the bytes of the arrays in a type, without those in the chip if not `on_chip`."""
    spaces = [found["space"] for found in _ARRAY.finditer(text)]
    return [
        math.ceil(math.prod(shape) * _bits(dtype) / 8) if on_chip or space in (None, "0") else 0
        for (dtype, shape), space in zip(arrays(text), spaces, strict=True)
    ]


def _bits(dtype: str) -> int:
    if dtype in ("pred", "token"):
        return 8 if dtype == "pred" else 0
    return int(re.findall(r"\d+", dtype)[0])  # bf16, f8e4m3fn, s32, c64


def _instruction(name: str, rest: str) -> Instruction:
    kind, rest = _split_type(rest)
    opcode, _, rest = rest.partition("(")
    operands, attributes = _balanced(rest)
    if opcode == "constant":
        return Instruction(name, kind, opcode, (operands,), attributes)
    names = tuple(re.findall(r"%([\w.\-]+)", operands))
    return Instruction(name, kind, opcode.strip(), names, attributes)


def _split_type(rest: str) -> tuple[str, str]:
    if not rest.startswith("("):
        kind, _, rest = rest.partition(" ")
        return kind, rest
    inside, rest = _balanced(rest[1:])
    return f"({inside})", rest.lstrip()


def _balanced(text: str) -> tuple[str, str]:
    """Splits what follows an opening parenthesis into its inside and what comes after it."""
    depth = 1
    for index, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if not depth:
            return text[:index], text[index + 1 :]
    return text, ""


def _attribute(one: Instruction, name: str) -> str:
    found = re.search(rf"\b{name}=%?([\w.\-]+)", one.attributes)
    return found[1] if found else ""


def _starts(one: Instruction) -> bool:
    """Whether a device starts something for this instruction; the end of a copy is not counted."""
    return one.opcode not in _FREE and not one.opcode.endswith("-done")


def _library_flops(one: Instruction, operands: list[Instruction | None]) -> int:
    """Returns the operations of a call of cuDNN or cuBLAS, or 0 for any other."""
    target = re.search(r'custom_call_target="__(cudnn\$conv|cublas\$)(\w*)', one.attributes)
    first, second = (*operands, None, None)[:2]
    if target is None or first is None or second is None:
        return 0
    (_, result), (_, left), (_, right) = (arrays(x.type)[0] for x in (one, first, second))
    if target[1] == "cublas$":
        axes = re.search(r'"lhs_contracting_dimensions":\["?([\d",]*)\]', one.attributes)
        sides = re.findall(r"\d+", axes[1]) if axes else []
        return 2 * math.prod(result) * math.prod(left[int(axis)] for axis in sides)
    labels = re.search(r"dim_labels=\w+_(\w+)->", one.attributes)
    if labels is None:
        return 0
    # Whatever is computed from the other two: each output is a product with a whole kernel.
    output, kernel = {
        "BackwardInput": (left, right),
        "BackwardFilter": (right, result),
    }.get(target[2], (result, right))
    return 2 * math.prod(output) * math.prod(kernel) // kernel[labels[1].index("o")]


def _contracted(one: Instruction, left: Instruction, right: Instruction) -> int:
    """Returns the number of products that each value of a dot or a convolution sums."""
    (_, left_shape), (_, right_shape) = arrays(left.type)[0], arrays(right.type)[0]
    if one.opcode == "dot":
        axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.attributes)
        return math.prod(left_shape[int(a)] for a in axes[1].split(",") if a) if axes else 1
    labels = re.search(r"dim_labels=\w+_(\w+)->", one.attributes)
    outputs = right_shape[labels[1].index("o")] if labels else 1
    return max(math.prod(right_shape) // max(outputs, 1), 1)
