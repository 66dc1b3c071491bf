#!/usr/bin/env bash
# Runs a recipe on a Cloud TPU slice, which a queued resource provides: one VM or a pod of them.
#
#   launch/tpu_vm.sh up --name seam --zone us-west4-a --type v5litepod-8 --spot
#   launch/tpu_vm.sh run --name seam --zone us-west4-a -- --config seam_voc --workdir data/runs/seam \
#       --config.data.root=data/VOCdevkit --config.train.method.dtype=bfloat16
#   launch/tpu_vm.sh logs --name seam --zone us-west4-a
#   launch/tpu_vm.sh down --name seam --zone us-west4-a
#
# Commands:
#   up       asks for the slice, waits for it, copies this checkout and installs it on all workers
#   run      starts wsss_jax.main on all workers, with the arguments after --; it goes on without you
#   logs     follows what worker 0 prints
#   status   tells the state of the slice and of the run
#   keep     up and run, and again after every pre-emption until the run has ended
#   down     deletes the slice
#
# Options:
#   --name NAME         the name of the queued resource and of its node
#   --zone ZONE         the zone
#   --project PROJECT   the project (gcloud's own setting)
#   --type TYPE         the accelerator (v5litepod-8); wsss_jax.main --dry_run --topology tells what fits
#   --version VERSION   the runtime version (the one of the accelerator's generation)
#   --bucket BUCKET     a Cloud Storage bucket, mounted as data/ on all workers with gcsfuse; pods need
#                       it for data and --workdir, and a single VM keeps its results there
#   --spot              cheaper, and taken away at any time
#   --poll SECONDS      how often states are asked for (30)
#   --dry_run           print the commands instead of running them
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
name='' zone='' project='' type=v5litepod-8 version='' bucket='' poll=30
spot=() dry=''

usage() { sed -n '2,/^set -euo/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }
fail() { echo "error: $*" >&2; exit 2; }
say() { echo "[tpu_vm] $*" >&2; }

# Prints a command that changes something, and runs it unless this is a dry run.
act() {
  printf '+' >&2; printf ' %q' "$@" >&2; printf '\n' >&2
  [ -n "$dry" ] || "$@"
}

command=${1:---help}
[ $# -eq 0 ] || shift
case $command in
  up | run | logs | status | keep | down) ;;
  -h | --help | help) usage; exit 0 ;;
  *) fail "expected up, run, logs, status, keep or down, found '$command'" ;;
esac
while [ $# -gt 0 ]; do
  case $1 in
    --spot) spot=(--spot); shift; continue ;;
    --dry_run | --dry-run) dry=yes; shift; continue ;;
    --) shift; break ;;
    --name | --zone | --project | --type | --version | --bucket | --poll) ;;
    *) fail "unknown option '$1': see --help, and put the run's own options after --" ;;
  esac
  [[ ${2:---} != --* ]] || fail "$1 needs a value"
  printf -v "${1#--}" '%s' "$2"
  shift 2
done
[ -n "$name" ] || fail '--name is missing'
[ -n "$zone" ] || fail '--zone is missing'
if [ "$command" = run ] || [ "$command" = keep ]; then
  [ $# -gt 0 ] || fail "$command needs the arguments of wsss_jax.main after --"
elif [ $# -gt 0 ]; then
  fail "$command takes no arguments after --, found '$1'"
fi
if [ -z "$version" ]; then
  case $type in
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v6e-*) version=v2-alpha-tpuv6e ;;
    v4-*) version=tpu-ubuntu2204-base ;;
    *) fail "no runtime version is known for '$type': name one with --version" ;;
  esac
fi
[ -n "$dry" ] || [ -n "$(type -P gcloud)" ] || fail 'gcloud is not installed: install the Google Cloud CLI'

place=(--zone "$zone" ${project:+--project "$project"})
on_all=(gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker=all --command)
on_first=(gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker=0 --command)

state() {
  gcloud compute tpus queued-resources describe "$name" "${place[@]}" \
    --format='value(state.state)' 2> /dev/null || echo NONE
}

create() {
  act gcloud compute tpus queued-resources create "$name" --node-id "$name" "${place[@]}" \
    --accelerator-type "$type" --runtime-version "$version" "${spot[@]}"
}

delete() {
  act gcloud compute tpus queued-resources delete "$name" "${place[@]}" --force --quiet
}

# Asks for the slice if there is none, replaces one that was taken away, and waits until it is there.
wait_for_slice() {
  if [ -n "$dry" ]; then create; return; fi
  local now last=''
  while :; do
    now=$(state)
    [ "$now" = "$last" ] || say "$name is $now"
    last=$now
    case $now in
      ACTIVE) return ;;
      NONE) create ;;
      FAILED | SUSPENDED) delete ;;
    esac
    sleep "$poll"
  done
}

# What workers do to install: they expand these lines. Python comes from uv where the image's own is
# too old.
# shellcheck disable=SC2016
{
  python='python3 -c "import sys; sys.exit(sys.version_info < (3, 11))" && p=python3 || {'
  python+=' pip install --user -q uv; ~/.local/bin/uv python install 3.12;'
  python+=' p=$(~/.local/bin/uv python find 3.12); }'
  install='[ -d .venv ] || "$p" -m venv .venv;'
  install+=' .venv/bin/python -m pip install -q -c constraints.txt -e ".[tpu]"'
  mount='set -e; mkdir -p wsss_jax/data; mountpoint -q wsss_jax/data || {'
  mount+=' command -v gcsfuse > /dev/null || sudo apt-get install -y -q gcsfuse;'
  mount+=' gcsfuse --implicit-dirs --rename-dir-limit 10000'
}

install() {
  local archive
  archive=$(mktemp --suffix=.tar.gz)
  act git -C "$root" archive --format=tar.gz --prefix=wsss_jax/ -o "$archive" HEAD
  act gcloud compute tpus tpu-vm scp "$archive" "$name:wsss_jax.tar.gz" "${place[@]}" --worker=all
  rm -f "$archive"
  act "${on_all[@]}" "set -e; tar xzf wsss_jax.tar.gz; cd wsss_jax; $python; $install"
  [ -z "$bucket" ] || act "${on_all[@]}" "$mount $(printf %q "$bucket") wsss_jax/data; }"
}

# The same command goes on with a run that was interrupted. What it leaves in run.status is its exit
# status; 75 is that of a run that was asked to stop.
start() {
  local arguments body
  arguments=$(printf ' %q' "$@")
  # shellcheck disable=SC2016 # The worker expands this.
  body='.venv/bin/python -m wsss_jax.main --distributed --status_if_stopped 75 "$@"; echo $? > run.status'
  act "${on_all[@]}" "cd wsss_jax && rm -f run.status && (setsid nohup sh -c '$body' sh$arguments >> run.log 2>&1 < /dev/null &)"
}

ended() { "${on_first[@]}" 'cat wsss_jax/run.status 2> /dev/null || true' 2> /dev/null | tr -dc 0-9; }

case $command in
  up)
    wait_for_slice
    install
    ;;
  run) start "$@" ;;
  logs) act "${on_first[@]}" 'tail -n 100 -F wsss_jax/run.log' ;;
  status)
    if [ -n "$dry" ]; then
      act gcloud compute tpus queued-resources describe "$name" "${place[@]}" '--format=value(state.state)'
      exit
    fi
    now=$(state)
    echo "slice: $now"
    [ "$now" != ACTIVE ] || { result=$(ended); echo "run: ${result:-not ended}"; }
    ;;
  keep)
    while :; do
      wait_for_slice
      install
      start "$@"
      [ -z "$dry" ] || exit 0
      while [ "$(state)" = ACTIVE ]; do
        result=$(ended)
        if [ -n "$result" ] && [ "$result" != 75 ]; then
          say "the run ended with status $result"
          exit "$result"
        fi
        sleep "$poll"
      done
      say "$name was taken away; asking for another one"
    done
    ;;
  down) delete ;;
esac
