"""What a compiled program costs each device: arithmetic, memory, traffic; and its roofline."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax

from wsss_jax.accelerators.chips import Chip
from wsss_jax.accelerators.hlo import Collective, Module


@dataclasses.dataclass(frozen=True)
class Roofline:
    """The least seconds of an execution, by what limits it; none of them overlaps with itself.

    Attributes:
      arithmetic: the time of the FLOPs at the chip's bfloat16 rate.
      memory: the time of all bytes that are read from and written to the memory outside the chip.
      interconnect: the time of what the chip sends to others.
    """

    arithmetic: float
    memory: float
    interconnect: float

    @property
    def seconds(self) -> float:
        """The time of a program that overlaps all three perfectly."""
        return max(self.arithmetic, self.memory, self.interconnect)

    @property
    def binds(self) -> str:
        """What takes longest: ``arithmetic``, ``memory`` or ``interconnect``."""
        return max(vars(self), key=vars(self).__getitem__)


@dataclasses.dataclass(frozen=True)
class ProgramCost:
    """What one execution of a compiled program costs each of its devices.

    Attributes:
      devices: the number of devices that run the program together.
      flops: the floating-point operations.
      bytes_accessed: the bytes that instructions read and write, a fused group of them as one.
      hbm_bytes: those of them that are not in the memory of the chip itself, where the TPU's
        compiler keeps what fits; elsewhere, caches are unknown and these are all of them.
      peak: the most bytes of memory at any time.
      arguments: the bytes of the arguments.
      outputs: the bytes of the results, including those that replace arguments.
      temporaries: the bytes of what exists only during the execution.
      collectives: the exchanges between devices by kind.
      unknown_loops: the number of loops whose rounds are unknown, which are counted as one round.
      cycles: the cycles that a TPU's compiler expects; see `Module.cycles`. 0 on other backends.
      launches: the programs that a device starts one after the other; see `Module.launches`.
    """

    devices: int
    flops: float
    bytes_accessed: float
    hbm_bytes: float
    peak: int
    arguments: int
    outputs: int
    temporaries: int
    collectives: tuple[Collective, ...]
    unknown_loops: int
    cycles: int = 0
    launches: int = 0

    @classmethod
    def of(cls, compiled: jax.stages.Compiled) -> "ProgramCost":
        """Reads the cost of `compiled`, for any backend.

        XLA counts one round of each loop; the rounds are multiplied here, by the ratio that
        `Module.loop_factors` finds in the program's text. For a GPU that is not at hand XLA counts
        nothing, and with one nothing of cuDNN and cuBLAS; `Module` counts these.

        Raises:
          ValueError: the backend does not tell the memory or the text.
        """
        memory, text = compiled.memory_analysis(), compiled.as_text()
        if memory is None or not text:
            raise ValueError("expected a program whose backend tells its memory, found none")
        module = Module.parse(text)
        flops, accessed = map(float, module.work())
        library = module.library_flops()
        if analysis := compiled.cost_analysis():
            more_flops, more_bytes = module.loop_factors()
            flops = float(analysis.get("flops", 0.0)) * more_flops
            if not library:  # XLA counts no bytes for calls of libraries
                accessed = float(analysis.get("bytes accessed", 0.0)) * more_bytes
        return cls(
            devices=module.devices,
            flops=flops + library,
            bytes_accessed=accessed,
            hbm_bytes=accessed * module.off_chip_share(),
            peak=memory.peak_memory_in_bytes,
            arguments=memory.argument_size_in_bytes,
            outputs=memory.output_size_in_bytes,
            temporaries=memory.temp_size_in_bytes,
            collectives=module.collectives(),
            unknown_loops=module.unknown_loops,
            cycles=module.cycles(),
            launches=module.launches(),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> "ProgramCost":
        """Returns the cost from what `to_json` returned."""
        known: dict[str, Any] = dict(plain)
        known["collectives"] = tuple(Collective(**one) for one in plain["collectives"])
        return cls(**known)

    def expected_seconds(self, chip: Chip) -> float | None:
        """Returns the time of an execution as the compiler expects it, or None if it does not say.

        It is an estimate without exchanges between devices, above the roofline as a rule.
        """
        return self.cycles / (chip.mhz * 1e6) if self.cycles and chip.mhz else None

    def sent(self, devices: int | None = None) -> float:
        """Returns the bytes that each device sends to others; see `sent_bytes`."""
        return sent_bytes(self.collectives, self.devices if devices is None else devices)

    def roofline(self, chip: Chip) -> Roofline:
        """Returns the least time of an execution on chips of this kind."""
        return Roofline(
            arithmetic=self.flops / (chip.bf16_tflops * 1e12),
            memory=self.hbm_bytes / (chip.hbm_gbps * 1e9),
            interconnect=self.sent() / (chip.interconnect_gbps * 1e9),
        )


def sent_bytes(collectives: Iterable[Collective], devices: int) -> float:
    """Returns the bytes that each of `devices` in a ring sends, with the bytes of the results.

    An all-reduce of B bytes over n devices sends 2·B·(n − 1)/n, the sum of a reduce-scatter (whose
    result is B/n) and an all-gather; a permutation sends its bytes once.
    """
    share = (devices - 1) / devices
    factors = {
        "all-reduce": 2 * share,
        "reduce-scatter": share * devices,
        "collective-permute": 1.0,
        "collective-broadcast": 1.0,
    }
    moved = sum(factors.get(one.kind, share) * one.bytes for one in collectives)
    return float(moved) if devices > 1 else 0.0
