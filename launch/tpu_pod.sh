#!/usr/bin/env bash
# A TPU pod, and one training command on all of its workers, begun again as often as it is preempted.
#
#   ./launch/tpu_pod.sh [--dry_run] create
#   ./launch/tpu_pod.sh [--dry_run] train --config=... --workdir=gs://BUCKET/RUN [--config.a.b=c ...]
#   ./launch/tpu_pod.sh [--dry_run] collect --workdir=gs://BUCKET/RUN
#   ./launch/tpu_pod.sh [--dry_run] delete
#
# `train` makes the pod if there is none or it was taken away, copies this checkout to every worker
# and starts launch.train there; JAX finds the other processes by itself. Exit code 75 (preempted,
# saved) or a pod that is gone: again. Any other code: that is the end, and its own exit code.
# --dry_run prints every command and runs none.
#
# Settings, by the environment:
#   TPU, ZONE      name and zone of the pod; must be set
#   TYPE, VERSION  for create: such as v5litepod-16 and v2-alpha-tpuv5-lite
#   SPOT=1         a spot pod          QUEUED=1  asks through a queued resource, and waits for it
#   DIR=augjax     where the checkout lies on a worker, below its home
#   SHARED=1       --workdir is a disk that all workers share, or there is one worker
#   TO=runs        where `collect` puts the run folder
#   EXTRAS=tpu,store  what is installed (setup.py)      RETRY_S=30  pause before another try
set -euo pipefail
: "${TPU:?set TPU to the name of the pod}" "${ZONE:?set ZONE to its zone}"
DIR=${DIR:-augjax} TO=${TO:-runs} EXTRAS=${EXTRAS:-tpu,store} RETRY_S=${RETRY_S:-30}
tpu=(gcloud compute tpus tpu-vm) queue=(gcloud compute tpus queued-resources)

say() { echo "tpu_pod: $*" >&2; }

run() {  # a command, or with --dry_run its text
  if [ -n "$dry" ]; then printf '%q ' "$@"; echo; else "$@"; fi
}

exec 3>&1
ask() {  # what a command prints, nothing if it fails; with --dry_run its text goes past who asks
  if [ -n "$dry" ]; then run "$@" >&3; else "$@" 2>/dev/null || true; fi
}

state() { ask "${tpu[@]}" describe "$TPU" --zone="$ZONE" --format="value(state)"; }

on_all() { run "${tpu[@]}" ssh "$TPU" --zone="$ZONE" --worker=all --command="$1"; }

delete() {
  if [ -n "${QUEUED:-}" ]; then
    run "${queue[@]}" delete "$TPU" --zone="$ZONE" --force --quiet
  else
    run "${tpu[@]}" delete "$TPU" --zone="$ZONE" --quiet
  fi
}

create() {
  : "${TYPE:?set TYPE, such as v5litepod-16}" "${VERSION:?set VERSION, such as v2-alpha-tpuv5-lite}"
  local spot=()
  if [ -n "${SPOT:-}" ]; then spot=(--spot); fi
  if [ -n "${QUEUED:-}" ]; then
    run "${queue[@]}" create "$TPU" --node-id="$TPU" --zone="$ZONE" --accelerator-type="$TYPE" \
      --runtime-version="$VERSION" "${spot[@]}"
    wait_in_queue
  else
    run "${tpu[@]}" create "$TPU" --zone="$ZONE" --accelerator-type="$TYPE" --version="$VERSION" \
      "${spot[@]}"
  fi
}

queued() { ask "${queue[@]}" describe "$TPU" --zone="$ZONE" --format="value(state.state)"; }

wait_in_queue() {
  local found
  while true; do
    found=$(queued)
    case "${dry:+ACTIVE}$found" in
      ACTIVE) return ;;
      FAILED | SUSPENDED) say "the queued resource $TPU is $found"; return 1 ;;
    esac
    say "the queued resource $TPU is ${found:-not known yet}; asking again in $RETRY_S s"
    sleep "$RETRY_S"
  done
}

prepare() {  # this checkout and a Python that is new enough
  on_all "mkdir -p ~/$DIR && { python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
{ sudo apt-get update && sudo apt-get install --yes python3.11 python3.11-venv; }; }"
  run "${tpu[@]}" scp --recurse --zone="$ZONE" --worker=all \
    augjax configs launch setup.py pyproject.toml "$TPU:~/$DIR"
}

ensure() {  # a pod that is ready; one that was taken away is made anew
  local found asked=
  found=$(state)
  if [ "$found" != READY ]; then
    if [ -n "${QUEUED:-}" ]; then asked=$(queued); fi
    case "$asked" in
      ACCEPTED | WAITING_FOR_RESOURCES | PROVISIONING) wait_in_queue ;;
      *)
        if [ -n "$found$asked" ]; then
          say "$TPU is ${found:-gone}"
          delete
        fi
        create
        ;;
    esac
  fi
  prepare
}

train() {
  local command code found
  require_shared "$@"
  command="cd ~/$DIR && source launch/environment.sh && make_environment $EXTRAS &&
export AUGJAX_POD=1 && exec python -m launch.train$(printf ' %q' "$@")"
  ensure
  while true; do
    code=0
    on_all "$command" || code=$?
    if [ "$code" -eq 0 ]; then break; fi
    found=$(state)
    if [ "$code" -ne 75 ] && [ "$found" = READY ]; then
      say "launch.train ended with $code; not preempted, so not started again"
      return "$code"
    fi
    say "preempted (exit code $code, the pod is ${found:-gone}); again in $RETRY_S s"
    sleep "$RETRY_S"
    if [ "$found" != READY ]; then ensure; fi
  done
}

collect() {
  local workdir
  workdir=$(workdir_of "$@")
  run mkdir -p "$TO"
  case "$workdir" in
    *://*) run gcloud storage cp --recursive "$workdir" "$TO" ;;
    /*) run "${tpu[@]}" scp --recurse --zone="$ZONE" --worker=0 "$TPU:$workdir" "$TO" ;;
    *) run "${tpu[@]}" scp --recurse --zone="$ZONE" --worker=0 "$TPU:~/$DIR/$workdir" "$TO" ;;
  esac
}

workdir_of() {  # the value of --workdir
  local argument
  for argument in "$@"; do
    case "$argument" in --workdir=*) echo "${argument#--workdir=}"; return ;; esac
  done
  say "give --workdir=..."
  return 2
}

require_shared() {
  local workdir
  workdir=$(workdir_of "$@")
  case "$workdir${SHARED:+://}" in
    *://*) ;;
    *) say "--workdir=$workdir lies on each worker's own disk: give gs://..., or set SHARED=1"
       return 2 ;;
  esac
}

cd "$(dirname "$0")/.."
dry=
if [ "${1:-}" = "--dry_run" ]; then dry=1; shift; fi
action=${1:-none}
[ $# -eq 0 ] || shift
case "$action" in
  create) ensure ;;
  train) train "$@" ;;
  collect) collect "$@" ;;
  delete) delete ;;
  *) say "expected create, train, collect or delete, got $action"; exit 2 ;;
esac
