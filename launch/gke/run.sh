#!/usr/bin/env bash
# Runs a recipe on a Kubernetes cluster (GKE) with JobSet, on a TPU slice or on nodes with GPUs:
#
#   launch/gke/run.sh --name seam --image REGISTRY/wsss_jax --claim data \
#       --accelerator tpu-v5-lite-podslice --topology 4x8 --chips 4 -- \
#       --config seam_voc --workdir /data/runs/seam --config.data.root=/data/VOCdevkit
#
# The image is made from launch/Dockerfile. Data and results lie on a volume that all pods mount as
# /data (ReadWriteMany, such as Filestore). The run goes on after any restart, and
# `kubectl delete jobset NAME` ends it.
#
# Options:
#   --name NAME                the name of the JobSet
#   --image IMAGE              the container image
#   --claim CLAIM              the claim of the shared volume
#   --accelerator ACCELERATOR  the node label: tpu-v5-lite-podslice, tpu-v6e-slice, nvidia-h100-80gb, …
#   --topology TOPOLOGY        of a TPU slice (4x8); without it, the nodes have GPUs
#   --chips N                  TPU chips or GPUs of a node (4)
#   --hosts N                  nodes; of a TPU slice, it follows from the topology
#   --dry_run                  print the manifest instead of applying it
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
name='' image='' claim='' accelerator='' topology='' chips=4 hosts='' dry=''

fail() { echo "error: $*" >&2; exit 2; }

while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) sed -n '2,/^set -euo/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    --dry_run | --dry-run) dry=yes; shift; continue ;;
    --) shift; break ;;
    --name | --image | --claim | --accelerator | --topology | --chips | --hosts) ;;
    *) fail "unknown option '$1': see --help, and put the run's own options after --" ;;
  esac
  [[ ${2:---} != --* ]] || fail "$1 needs a value"
  printf -v "${1#--}" '%s' "$2"
  shift 2
done
for option in name image claim accelerator; do
  [ -n "${!option}" ] || fail "--$option is missing"
done
[[ $name =~ ^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$ ]] ||
  fail "expected a --name of up to 40 small letters, digits and hyphens, found '$name'"
[[ $chips =~ ^[1-9][0-9]*$ ]] || fail "expected a number of --chips, found '$chips'"
[ $# -gt 0 ] || fail 'the arguments of wsss_jax.main are missing after --'

if [ -n "$topology" ]; then
  [[ $topology =~ ^[1-9][0-9]*(x[1-9][0-9]*){1,2}$ ]] ||
    fail "expected a --topology such as 2x4 or 2x2x2, found '$topology'"
  all=$((${topology//x/*}))
  [ $((all % chips)) -eq 0 ] || fail "$all chips of $topology are no multiple of --chips $chips"
  [ -z "$hosts" ] || [ "$hosts" -eq $((all / chips)) ] ||
    fail "a $topology slice has $((all / chips)) hosts with $chips chips, found --hosts $hosts"
  hosts=$((all / chips)) manifest=tpu.yaml
  together=(--distributed)
else
  hosts=${hosts:-1} manifest=gpu.yaml
  [[ $hosts =~ ^[1-9][0-9]*$ ]] || fail "expected a number of --hosts, found '$hosts'"
  # shellcheck disable=SC2016 # Kubernetes replaces $(PROCESS_ID).
  together=(--coordinator "$name-workers-0-0.$name:8476" --num_processes "$hosts" --process_id '$(PROCESS_ID)')
fi
[ "$hosts" -gt 1 ] || together=()

# JSON is YAML, so arguments of any content stay what they are.
filled=$(python3 - "$here/$manifest" "$name" "$image" "$claim" "$accelerator" "$topology" "$chips" "$hosts" \
  --status_if_stopped 75 "${together[@]}" "$@" << 'PYTHON'
import json, string, sys
path, *values = sys.argv[1:9]
names = ("NAME", "IMAGE", "CLAIM", "ACCELERATOR", "TOPOLOGY", "CHIPS", "HOSTS")
numbers = {"CHIPS", "HOSTS"}
filled = {n: v if n in numbers else json.dumps(v) for n, v in zip(names, values)}
filled["ARGUMENTS"] = json.dumps(sys.argv[9:])
lines = (line for line in open(path) if not line.startswith("#"))
print(string.Template("".join(lines)).substitute(filled), end="")
PYTHON
)
if [ -n "$dry" ]; then
  printf '%s\n' "$filled"
else
  printf '%s\n' "$filled" | kubectl apply -f -
  echo "kubectl logs -f -l jobset.sigs.k8s.io/jobset-name=$name,batch.kubernetes.io/job-completion-index=0"
fi
