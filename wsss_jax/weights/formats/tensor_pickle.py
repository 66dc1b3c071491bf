"""What the pickle in a PyTorch checkpoint may name.

Besides tensors, checkpoints of training hold options, counters, random states and the state of the
optimizer. They are inert here, and their tensors are never read.
"""

from typing import Any

from wsss_jax.data.formats.pickle_interpreter import Inert, Names, ordered_dict
from wsss_jax.data.formats.safe_pickle import NUMPY_NAMES
from wsss_jax.data.formats.torch_pickle import NAMES as TENSOR_NAMES


def _counter(counts: Any = ()) -> dict[Any, Any]:
    return ordered_dict(counts.items() if isinstance(counts, dict) else counts)


def _default_dict(default: Any = None, items: Any = ()) -> dict[Any, Any]:
    return ordered_dict(items)


NAMES: Names = {
    **NUMPY_NAMES,
    **TENSOR_NAMES,
    **dict.fromkeys(
        (
            "argparse.Namespace",
            "pathlib.Path",
            "pathlib.PosixPath",
            "pathlib.PurePosixPath",
            "pathlib.WindowsPath",
            "pathlib._local.PosixPath",
            "pathlib._local.WindowsPath",
            "datetime.timedelta",
            "builtins.dict",
            "builtins.list",
            "builtins.complex",
            "__builtin__.dict",
            "__builtin__.list",
            "__builtin__.complex",
        ),
        Inert,
    ),
    "collections.Counter": _counter,
    "collections.defaultdict": _default_dict,
}
