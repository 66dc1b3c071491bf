"""What the pickle in a PyTorch checkpoint may name.

Besides tensors, checkpoints of training hold options, counters, random states and the state of the
optimizer. They are inert here, and their tensors are never read.
"""

from typing import Any

from wsss_jax.data.formats.pickle_interpreter import Inert, Names, StandIn, ordered_dict
from wsss_jax.data.formats.safe_pickle import NUMPY_NAMES
from wsss_jax.data.formats.torch_pickle import NAMES as TENSOR_NAMES
from wsss_jax.data.formats.torch_pickle import Tensor


def _counter(counts: Any = ()) -> dict[Any, Any]:
    return ordered_dict(counts.items() if isinstance(counts, dict) else counts)


def _default_dict(default: Any = None, items: Any = ()) -> dict[Any, Any]:
    return ordered_dict(items)


class ScriptModule(StandIn):
    """Stands for a module of TorchScript, whose state has its tensors and its submodules."""

    __slots__ = ("state",)

    def __init__(self, *_: Any) -> None:
        self.state: dict[Any, Any] = {}

    def set_state(self, state: Any) -> None:
        """Takes the attributes by name."""
        self.state = state if isinstance(state, dict) else {}

    def state_dict(self, most: int) -> dict[str, Tensor]:
        """Returns the tensors by their path with dots.

        Raises:
          ValueError: there are more than `most` attributes, which may be the same ones many times.
        """
        found: dict[str, Tensor] = {}
        waiting: list[tuple[str, ScriptModule]] = [("", self)]
        steps = 0
        while waiting:
            prefix, module = waiting.pop()
            for name, value in module.state.items():
                steps += 1
                if steps > most:
                    raise ValueError(f"expected at most {most} attributes of modules")
                path = f"{prefix}{name}"[:_LONGEST_PATH]
                if isinstance(value, ScriptModule):
                    waiting.append((f"{path}.", value))
                elif isinstance(value, Tensor):
                    found[path] = value
        return found


def _first(value: Any, *_: Any) -> Any:
    return value


_LONGEST_PATH = 1000

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


class _ScriptNames(dict[str, Any]):
    """Besides `NAMES` those of TorchScript, where the file itself defines the classes."""

    def __missing__(self, name: str) -> Any:
        if name.startswith("__torch__."):
            return ScriptModule
        if name.startswith("torch.jit._pickle."):
            return _first
        raise KeyError(name)


SCRIPT_NAMES: Names = _ScriptNames(NAMES)
"""What the pickle of a TorchScript archive may name; its code is never looked at."""
