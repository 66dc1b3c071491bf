"""A recipe of one fake stage."""

from pathlib import Path

_STAGE = """
import dataclasses
import time
from wsss_jax.stages.base import Stage

@dataclasses.dataclass(frozen=True, kw_only=True)
class Work(Stage):
    value: int
    rate: float
    flip: bool
    scales: tuple[float, ...]
    sizes: tuple[int, ...]
    mode: str
    label: str

    def run(self, ctx, inputs):
        ctx.log(f"value {self.value} scales {self.scales}")
        (ctx.stage_dir / "begun").write_text("")
        if self.mode == "wait":
            time.sleep(600)
        if self.mode == "stuck":  # as in a compiler, which calls no handlers of signals
            import hashlib
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
        if self.mode == "share":
            (ctx.stage_dir / f"part{ctx.process_index}of{ctx.process_count}").write_text("")
        if self.mode == "late" and ctx.process_index == 1:
            time.sleep(600)
        if self.mode == "compile":
            import jax, jax.numpy as jnp
            def slow(x):
                for i in range(40):
                    x = jnp.sin(x @ x.T) + jnp.linalg.qr(x)[0]
                return x
            began = time.monotonic()
            value = jax.jit(slow)(jnp.ones((64, 64)) / 64 + jnp.eye(64))
            (ctx.workdir.parent / "bytes").write_bytes(value.tobytes())
            return {"compile": time.monotonic() - began}
        return {"miou": 0.5}
"""


_CONFIG = """
from ml_collections import ConfigDict
def get_config():
    return ConfigDict(dict(
        seed=0, data=dict(builder="tests.toys.no_data"), stages=("work",),
        work=dict(type="fake_main.stage", value=3, rate=0.5, flip=True, scales=(0.5, 1.0),
                  sizes=(1, 2), mode="", label="x"),
    ))
"""


def write_recipe(tmp_path: Path) -> Path:
    """A recipe of one fake stage, importable from its folder."""
    (tmp_path / "fake_main").mkdir()
    (tmp_path / "fake_main" / "__init__.py").write_text("")
    (tmp_path / "fake_main" / "stage.py").write_text(_STAGE)
    (tmp_path / "recipe.py").write_text(_CONFIG)
    return tmp_path / "recipe.py"
