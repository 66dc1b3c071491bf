"""Pickles that attack whoever reads them, written opcode by opcode.

Some call functions. Others promise what is not there, or grow far beyond their size.
"""

import pickle
import struct
from collections.abc import Callable

import numpy as np

FUNCTIONS = (
    *("os.system", "posix.system", "nt.system", "os.popen", "os.execl", "pty.spawn"),
    *("subprocess.Popen", "subprocess.check_output", "commands.getoutput", "runpy.run_path"),
    *("builtins.eval", "builtins.exec", "builtins.compile", "builtins.getattr", "builtins.open"),
    *("builtins.__import__", "__builtin__.eval", "importlib.import_module", "types.CodeType"),
    *("pickle.loads", "_pickle.loads", "marshal.loads", "shutil.rmtree", "webbrowser.open"),
    *("operator.attrgetter", "operator.methodcaller", "functools.partial", "types.FunctionType"),
    *("numpy.load", "numpy.testing._private.utils.runstring", "numpy.f2py.crackfortran.myeval"),
    *("torch.load", "torch.hub.load", "torch.jit.load", "torch.serialization.load"),
    *("torch._utils.sys.modules", "collections.OrderedDict.fromkeys", "collections.abc.os.system"),
    *("wsss_jax.files.atomic_write", "__main__.main", "copyreg._reconstructor", "copy_reg.add"),
    *("torch.nn.modules.linear.Linear", "argparse.ArgumentParser", "pathlib.Path.unlink"),
)
HARMLESS = (
    *("collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "argparse.Namespace"),
    *("torch.Size", "collections.Counter", "_codecs.encode", "numpy.ndarray", "builtins.set"),
    *("numpy.core.multiarray._reconstruct", "numpy.core.multiarray.scalar", "numpy.dtype"),
    *("torch._utils._rebuild_parameter", "torch._tensor._rebuild_from_type_v2", "builtins.bytes"),
    *("numpy._core.numeric._frombuffer", "collections.defaultdict"),
    *("torch._utils._rebuild_tensor_v3", "torch.storage._load_from_bytes"),
)
HUGE = (2**31 - 1, 2**32 - 1, 2**40, 2**62)


def some(rng: np.random.Generator, least: int, most: int) -> int:
    """A count, as often of few digits as of many."""
    return int(np.exp(rng.uniform(np.log(least), np.log(most))))


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def named(rng: np.random.Generator, name: str) -> bytes:
    """A name, in one of the ways of a pickle."""
    module, _, last = name.rpartition(".")
    if rng.random() < 0.5:
        return f"c{module}\n{last}\n".encode()
    return text(module) + text(last) + b"\x93"


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def storage(kind: str = "FloatStorage", key: bytes = text("0"), count: bytes = number(8)) -> bytes:
    """A persistent id."""
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + key + text("cpu") + count + b"tQ"


def tensor(size: bytes, stride: bytes, offset: bytes = number(0), of: bytes = storage()) -> bytes:
    """A call that makes a tensor."""
    head = b"ctorch._utils\n_rebuild_tensor_v2\n("
    return head + of + offset + size + stride + b"\x89)tR"


def entry(name: str, value: bytes) -> bytes:
    return text(name) + value + b"s"


def pickled(value: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + value + b"."


def in_state(value: bytes) -> bytes:
    """A value beside a good tensor."""
    good = tensor(number(8) + b"\x85", number(1) + b"\x85")
    return pickled(b"}" + entry("a.weight", good) + entry("b", value))


def calls(rng: np.random.Generator) -> bytes:
    """A function is called, in every way and at every place that pickles have."""
    name = named(rng, FUNCTIONS[int(rng.integers(len(FUNCTIONS)))])
    line = FUNCTIONS[int(rng.integers(len(FUNCTIONS)))]
    module, _, last = line.rpartition(".")
    argument = text("touch /tmp/executed")
    call = (
        name + argument + b"\x85R",
        name + argument + b"\x85\x81",
        name + argument + b"\x85}\x92",
        b"(" + name + argument + b"o",
        b"(" + argument + f"i{module}\n{last}\n".encode(),
        name + b")\x81}" + text("x") + argument + b"sb",
        b"\x82\x01",
        b"P" + argument + b"\n",
        argument + b"Q",
    )[int(rng.integers(9))]
    place = int(rng.integers(7))
    if place == 0:
        return pickled(call, int(rng.integers(6)))
    if place == 1:
        return in_state(call)
    if place == 2:
        return in_state(b"}" + call + b"Ns")
    if place == 3:
        return pickled(tensor(call, call))
    if place == 4:
        return pickled(tensor(b")", b")", of=storage(key=call)))
    if place == 5:
        return in_state(b"ccollections\nOrderedDict\n)R" + call + b"b")
    return in_state(f"c{HARMLESS[2].replace('.', chr(10))}\n".encode() + b")\x81" + call + b"b")


def misuse(rng: np.random.Generator) -> bytes:
    """Known names are called with what they do not expect."""
    values = (
        *(b"N", b")", b"]", b"}", b"\x8f", number(2**40), number(-1), text("a" * 100)),
        *(b"C\x04abcd", b"G" + struct.pack(">d", float("nan")), storage()),
        *(named(rng, "torch.float32"), named(rng, HARMLESS[int(rng.integers(len(HARMLESS)))])),
    )
    name = HARMLESS[int(rng.integers(len(HARMLESS)))]
    arguments = [values[int(i)] for i in rng.integers(len(values), size=int(rng.integers(8)))]
    state = values[int(rng.integers(len(values)))]
    call = named(rng, name) + b"(" + b"".join(arguments) + b"tR"
    if rng.random() < 0.5:
        call += b"(" + b"".join(arguments) + state + b"tb"
    return in_state(call)


def changed_functions(rng: np.random.Generator) -> bytes:
    """The state of a function or class is set, so that it would do something else from then on."""
    name = named(rng, HARMLESS[int(rng.integers(len(HARMLESS)))])
    state = b"N}" + entry("__defaults__", b")") + entry("make", b"N") + b"\x86"
    return in_state(name + state + b"b")


def missing_bytes(rng: np.random.Generator) -> bytes:
    """Text, bytes or numbers of a length that is not there."""
    code, form = ((b"X", "<I"), (b"B", "<I"), (b"T", "<I"), (b"\x8d", "<Q"), (b"\x8e", "<Q"))[
        int(rng.integers(5))
    ]
    if rng.random() < 0.3:
        code, form = ((b"\x96", "<Q"), (b"\x8b", "<I"), (b"\x95", "<Q"))[int(rng.integers(3))]
    count = int(rng.choice(HUGE)) % 256 ** struct.calcsize(form)
    return in_state(code + struct.pack(form, count) + bytes(100))


def memo(rng: np.random.Generator) -> bytes:
    """Many values are remembered, or one under a large number."""
    count = some(rng, 10, 10**6)
    return in_state(
        (
            b"Nr" + struct.pack("<I", int(rng.choice(HUGE[:2]))),
            b"N" + b"\x94" * count,
            b"Nj" + struct.pack("<I", int(rng.choice(HUGE[:2]))),
            b"Np99999999999\n",
            b"".join(b"Nr" + struct.pack("<I", i) for i in range(min(count, 10**5))),
        )[int(rng.integers(5))]
    )


def many_values(rng: np.random.Generator) -> bytes:
    """Containers that take a hundred times as much memory as the opcode that makes them."""
    opcode = (b"}", b"]", b"\x8f", b"(", b"N", b")", b"K\x01", b"N\x85", b"}N\x94s", b"\x88a")[
        int(rng.integers(10))
    ]
    count = some(rng, 10, 2 * 10**6 // len(opcode))
    return pickled(b"](" + opcode * count + b"e")


def deep_values(rng: np.random.Generator) -> bytes:
    """Containers in containers."""
    count = some(rng, 10, 3 * 10**5)
    kind = int(rng.integers(5))
    if kind == 0:
        return in_state(b"]" * count + b"a" * (count - 1))
    if kind == 1:
        return in_state(b")" + b"\x85" * count)
    if kind == 2:
        inner = tensor(number(8) + b"\x85", number(1) + b"\x85")
        count //= 30
        return pickled((b"}" + text("model")) * count + b"}" + entry("a", inner) + b"s" * count)
    if kind == 3:
        return in_state(b"(" * count + b"t" * count)
    call = b"ctorch._tensor\n_rebuild_from_type_v2\n"
    return in_state((call + b"(" + call + b"N") * (count // 100) + b")Nt" * (count // 100) + b"R")


def doubled_tuples(rng: np.random.Generator) -> bytes:
    """A tuple of itself twice, thirty times over: its hash and its text take a billion steps."""
    levels = int(rng.integers(20, 60))
    bomb = b")" + b"2\x86" * levels
    return (
        in_state(b"}" + bomb + b"Ns"),
        in_state(b"\x8f(" + bomb + b"\x90"),
        pickled(tensor(b")", b")", of=storage(key=bomb))),
        pickled(tensor(b")", b")", of=storage(count=bomb))),
        pickled(tensor(bomb, bomb)),
        in_state(bomb + bomb + b"\x93"),
        in_state(b"ccollections\nOrderedDict\n(]" + bomb + b"N\x86atR"),
        pickled(b"]" + bomb + b"a"),
    )[int(rng.integers(8))]


def repeated_calls(rng: np.random.Generator) -> bytes:
    """One large argument, given many times."""
    count = some(rng, 100, 2 * 10**5)
    large = some(rng, 100, 2 * 10**5)
    pairs = b"".join(b"K%cN\x86" % (i % 256) for i in range(large))
    name, argument = (
        ("collections.OrderedDict", b"](" + pairs + b"e"),
        ("builtins.set", b"](" + b"".join(number(i) for i in range(min(large, 10**5))) + b"e"),
        ("_codecs.encode", text("a" * large)),
        ("torch.Size", b"(" + b"K\x01" * large + b"t"),
        ("builtins.frozenset", text("ab" * large)),
    )[int(rng.integers(5))]
    more = text("latin1") + b"\x86" if name == "_codecs.encode" else b"\x85"
    head = named(rng, name) + b"\x94" + argument + b"\x94"
    again = b"(h\x00h\x01" + more + b"R"
    return pickled(b"](" + head + again * count + b"e")


def numpy_calls(rng: np.random.Generator) -> bytes:
    """NumPy's own functions, with numbers for bytes and types of many fields."""
    codes = (text("i1," * 10**5), text("(9999999,)f4"), number(2**40), text("O"), text("U99999999"))
    code = codes[int(rng.integers(len(codes)))] if rng.random() < 0.5 else text("f4")
    dtype = b"cnumpy\ndtype\n" + code + b"\x89\x88\x87R"
    content = (number(2**40), b"C\x04abcd", b"N", b"](" + b"N" * 1000 + b"e")[int(rng.integers(4))]
    shape = (number(2**40) + b"\x85", b")", number(-1) + b"\x85", b"(" + b"K\x01" * 999 + b"t")
    size = shape[int(rng.integers(4))]
    if rng.random() < 0.3:
        return in_state(b"cnumpy.core.multiarray\nscalar\n" + dtype + content + b"\x86R")
    if rng.random() < 0.3:
        head = b"cnumpy._core.numeric\n_frombuffer\n("
        return in_state(head + content + dtype + size + text("C") + b"tR")
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    return in_state(made + b"(K\x01" + size + dtype + b"\x89" + content + b"tb")


def collisions(rng: np.random.Generator) -> bytes:
    """Keys of one hash, which make a dictionary slow."""
    count = some(rng, 100, 20_000)
    step = 2**61 - 1
    keys = b"".join(number(i * step) + b"N" for i in range(count))
    return in_state(b"}(" + keys + b"u")


def long_numbers(rng: np.random.Generator) -> bytes:
    """Numbers of many digits."""
    digits = b"9" * some(rng, 10, 10**6)
    code = (b"I", b"L", b"F", b"p", b"g", b"S'", b"V")[int(rng.integers(7))]
    return in_state(code + digits + b"\n")


def tensor_shapes(rng: np.random.Generator) -> bytes:
    """Tensors that reach beyond their storage, repeat it or have no sense."""

    def axes() -> bytes:
        count = int(rng.choice([0, 1, 2, 3, 40]))
        values = rng.choice([0, 1, 2, 3, 8, 9, -1, 2**31, 2**62], size=count)
        return b"(" + b"".join(number(int(value)) for value in values) + b"t"

    size = axes()
    stride = axes() if rng.random() < 0.5 else size
    offset = number(int(rng.choice([0, 1, 8, -1, 2**40])))
    count = number(int(rng.choice([8, 8, 8, 0, -1, 2**40, 2**62])))
    kinds = ("FloatStorage", "ByteStorage", "BFloat16Storage", "UntypedStorage", "float32", "No")
    of = storage(kinds[int(rng.integers(len(kinds)))], count=count)
    return in_state(tensor(size, stride, offset, of))


def many_views(rng: np.random.Generator) -> bytes:
    """Thousands of tensors of one storage."""
    one = tensor(number(8) + b"\x85", number(1) + b"\x85")
    count = some(rng, 10, 5000)
    return pickled(b"}(" + b"".join(text(str(i)) + one for i in range(count)) + b"u")


def shared_dictionaries(rng: np.random.Generator) -> bytes:
    """A large dictionary that is the value of many keys, and one that holds itself."""
    count = some(rng, 100, 10**5)
    large = b"}\x94(" + b"".join(number(i) + b"N" for i in range(count)) + b"u"
    keys = b"".join(number(i) + b"h\x00" for i in range(count))
    itself = b"h\x00" + text("s") + b"h\x00s0"
    return pickled(b"}" + text("x") + large + b"s(" + keys + b"u" + itself)


def wide_text(rng: np.random.Generator) -> bytes:
    """Text whose last character makes all others four times as wide."""
    count = some(rng, 10, 4 * 10**6)
    return in_state(text("a" * count + "😀"))


PICKLES: list[Callable[[np.random.Generator], bytes]] = [
    *[calls] * 6,
    misuse,
    misuse,
    changed_functions,
    missing_bytes,
    memo,
    many_values,
    deep_values,
    doubled_tuples,
    repeated_calls,
    numpy_calls,
    collisions,
    long_numbers,
    tensor_shapes,
    tensor_shapes,
    many_views,
    shared_dictionaries,
    wide_text,
]
