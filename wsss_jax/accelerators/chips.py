"""What the chips can do at most.

Sources: the tables of specifications of Google Cloud's TPU pages (v4, v5e, v5p, v6e), and NVIDIA's
data sheets of the L4, the A100 SXM with 80 GB, the H100 SXM and the H200 SXM, without sparsity.
Interconnects are those between the chips of a slice (ICI) or of a server (NVLink, and PCIe for the
L4), in one direction, over all links of a chip; the tables state twice as much where they count
both directions.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """The limits of a chip.

    Attributes:
      name: its usual name.
      device_kind: the first words of what JAX calls it (`jax.Device.device_kind`).
      bf16_tflops: TFLOP/s of products in bfloat16.
      hbm_gbps: the bandwidth of its memory in GB/s.
      usable_gib: the part of its memory in GiB that programs may use; for TPUs, what libtpu says
        when one does not fit, and for GPUs all that CUDA gives.
      interconnect_gbps: what it can send to other chips, in GB/s.
      mhz: the clock of its matrix units, in which a TPU's compiler counts; 0 for GPUs.
    """

    name: str
    device_kind: str
    bf16_tflops: int
    hbm_gbps: int
    usable_gib: float
    interconnect_gbps: int
    mhz: int = 0


V4 = Chip("v4", "TPU v4", 275, 1228, 30.75, 300, 1050)
V5E = Chip("v5e", "TPU v5 lite", 197, 819, 15.75, 200, 1500)
V5P = Chip("v5p", "TPU v5", 459, 2765, 95.0, 600, 1750)
V6E = Chip("v6e", "TPU v6 lite", 918, 1640, 31.25, 400, 1750)
L4 = Chip("L4", "NVIDIA L4", 121, 300, 22.0, 32)
A100 = Chip("A100", "NVIDIA A100-SXM4-80GB", 312, 2039, 79.2, 300)
H100 = Chip("H100", "NVIDIA H100 80GB HBM3", 989, 3350, 79.1, 450)
H200 = Chip("H200", "NVIDIA H200", 989, 4800, 139.8, 450)

CHIPS = (V4, V5E, V5P, V6E, L4, A100, H100, H200)


def chip_of(device_kind: str) -> Chip | None:
    """Returns the chip that JAX calls `device_kind`, or None for one that is not in `CHIPS`."""
    fitting = [chip for chip in CHIPS if f"{device_kind} ".startswith(f"{chip.device_kind} ")]
    # "TPU v5 lite" also begins like "TPU v5".
    return max(fitting, key=lambda chip: len(chip.device_kind), default=None)
