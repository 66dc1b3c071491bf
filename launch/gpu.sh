#!/usr/bin/env bash
# Run a config on all GPUs of this machine: one process drives them all, each takes its share of
# the batch. The arguments are those of wsss_jax.main:
#
#   launch/gpu.sh --config configs/seam_voc.py --workdir runs/seam --config.data.root=~/VOCdevkit
#
# CUDA_VISIBLE_DEVICES=0,1 restricts the GPUs; PYTHON=... names another Python than .venv's.
# Without a GPU it shows the plan (--dry_run) and exits with 1, since nothing was trained.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
if ! command -v "$python" > /dev/null; then
  echo "No Python at $python: run 'make demo' in $root once, or set PYTHON." >&2
  exit 2
fi

# What the driver shows is asked for first: JAX without its CUDA plugin falls back to the CPU.
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
  echo "$cards GPU(s) in this machine, but JAX sees none. Install its CUDA plugin:" >&2
  echo "  $python -m pip install -c $root/constraints.txt -e '$root[cuda]'" >&2
  exit 2
fi

echo "No GPU visible: this is the plan only, made on the CPU; nothing will be trained." >&2
JAX_PLATFORMS=cpu "$python" -m wsss_jax.main "$@" --dry_run
exit 1
