#!/usr/bin/env bash
# Runs a recipe on all GPUs of this machine: one process drives them all, and the batch is sharded
# over them. The arguments are those of wsss_jax.main:
#
#   launch/gpu.sh --config configs/seam_voc.py --workdir runs/seam --config.data.root=~/VOCdevkit
#
# CUDA_VISIBLE_DEVICES=0,1 restricts the GPUs, and PYTHON=... selects a Python other than that in
# .venv. Without a GPU, the script shows the plan (--dry_run) and exits with status 1, because nothing
# was trained.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
if ! command -v "$python" > /dev/null; then
  echo "No Python at $python: run 'make demo' in $root once, or set PYTHON." >&2
  exit 2
fi

# The driver is asked first, because JAX without its CUDA plugin falls back to the CPU.
cards=0
if command -v nvidia-smi > /dev/null; then
  cards=$(nvidia-smi --query-gpu=name --format=csv,noheader 2> /dev/null | wc -l || true)
fi
usable=$("$python" -c 'import jax; print(jax.default_backend() == "gpu" and len(jax.devices()) or 0)' \
  2> /dev/null || echo 0)

if [ "$usable" -gt 0 ]; then
  echo "Running on $usable GPU(s): ${CUDA_VISIBLE_DEVICES:-all of this machine}."
  exec "$python" -m wsss_jax.main "$@"
fi

if [ "$cards" -gt 0 ]; then
  echo "This machine has $cards GPU(s), but JAX sees none. Install its CUDA plugin:" >&2
  echo "  $python -m pip install -c $root/constraints.txt -e '${root}[cuda]'" >&2
  exit 2
fi

echo "No GPU is visible, so this only shows the plan; nothing will be trained." >&2
JAX_PLATFORMS=cpu "$python" -m wsss_jax.main "$@" --dry_run
exit 1
