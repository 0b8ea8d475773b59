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
# A connection that is lost (255) while the pod stays READY ends this script, perhaps not the
# training: the same words again are refused where it goes on, and continue it where it ended.
# Only a pod that is PREEMPTED or TERMINATED is deleted, or a queued resource that FAILED or is
# SUSPENDED; passing states are waited for, others left to you: exit code 2.
# --dry_run, wherever it stands, prints every command and runs none; launch.train does not get it
# (its own --dry_run needs no pod: type that here). --help prints this.
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
say() { echo "tpu_pod: $*" >&2; }

run() {  # a command, or with --dry_run its text
  if [ -n "$dry" ]; then printf '%q ' "$@"; echo; else "$@"; fi
}

exec 3>&1
ask() {  # what a command prints; GONE where there is no such thing, UNANSWERED where it fails
  local errors code=0
  if [ -n "$dry" ]; then  # its text goes past who asks
    run "$@" >&3
    echo GONE
    return
  fi
  { errors=$("$@" 2>&1 >&4) || code=$?; } 4>&1
  case "$code $errors" in
    "0 "*) ;;
    *NOT_FOUND*) echo GONE ;;
    *) say "$errors"; echo UNANSWERED ;;
  esac
}

pause() { say "$1; again in $RETRY_S s"; sleep "$RETRY_S"; }

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
  if [ -n "${QUEUED:-}" ]; then
    run "${queue[@]}" create "$TPU" --node-id="$TPU" --zone="$ZONE" --accelerator-type="$TYPE" \
      --runtime-version="$VERSION" ${SPOT:+--spot}
    wait_in_queue
  else
    run "${tpu[@]}" create "$TPU" --zone="$ZONE" --accelerator-type="$TYPE" --version="$VERSION" \
      ${SPOT:+--spot}
  fi
}

queued() { ask "${queue[@]}" describe "$TPU" --zone="$ZONE" --format="value(state.state)"; }

wait_in_queue() {
  local found
  while true; do
    found=$(queued)
    if [ -n "$dry" ]; then return; fi
    case "$found" in
      ACTIVE) return ;;
      FAILED | SUSPENDED) say "the queued resource $TPU is $found"; return 1 ;;
    esac
    pause "the queued resource $TPU is $found"
  done
}

prepare() {  # this checkout and a Python that is new enough
  on_all "mkdir -p ~/$DIR && { python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
{ sudo apt-get update && sudo apt-get install --yes python3.11 python3.11-venv; }; }"
  run "${tpu[@]}" scp --recurse --zone="$ZONE" --worker=all \
    augjax configs launch setup.py pyproject.toml "$TPU:~/$DIR"
}

ensure() {  # a pod that is ready; one that was taken away is made anew
  local found
  while true; do
    found=$(state)
    if [ "$found" = GONE ] && [ -n "${QUEUED:-}" ]; then found="queued $(queued)"; fi
    case "$found" in
      READY) break ;;
      GONE | "queued GONE") create; break ;;
      PREEMPTED | TERMINATED | "queued "FAILED | "queued "SUSPENDED)
        say "$TPU is $found"
        delete
        create
        break ;;
      "queued "CREATING | "queued "ACCEPTED | "queued "PROVISIONING | "queued "WAITING*)
        wait_in_queue
        break ;;
      CREATING | STARTING | RESTARTING | REIMAGING | REPAIRING | HIDING | UNHIDING | STOPPING | \
        DELETING | "queued "SUSPENDING | "queued "DELETING) pause "$TPU is $found" ;;
      *UNANSWERED) return 2 ;;
      *)
        say "expected $TPU in $ZONE to be READY, got $found. It was left as it is: start it by" \
          "${tpu[*]} start $TPU --zone=$ZONE, or delete it, and type this again"
        return 2 ;;
    esac
  done
  prepare
}

# state_after CODE: once there is an answer. A pod that was just taken away may still be called
# READY, so after ssh's own 255 that is asked twice.
state_after() {
  local found
  found=$(state)
  if [ "$1 $found" = "255 READY" ]; then
    pause "the connection ended (255), and $TPU is READY"
    found=$(state)
  fi
  while [ "$found" = UNANSWERED ]; do
    pause "the state of $TPU is not known"
    found=$(state)
  done
  echo "$found"
}

train() {
  local command code found
  require_shared "$@"
  # JAX ends a run whose workers are joined a second time, before the lock of a run folder is
  # looked at: so a worker has a lock of its own.
  command="cd ~/$DIR && exec 9> ~/.augjax_training &&
{ flock --nonblock 9 || { echo \"launch.train runs on $TPU already\" >&2; exit 2; }; } &&
source launch/environment.sh && make_environment $EXTRAS &&
export AUGJAX_POD=1 && exec python -m launch.train$(printf ' %q' "$@")"
  ensure
  while true; do
    code=0
    on_all "$command" || code=$?
    if [ "$code" -eq 0 ]; then break; fi
    found=$(state_after "$code")
    case "$code $found" in
      "75 "*) ;;
      "255 READY")
        say "the connection to $TPU ended, and it is READY: launch.train may go on there. Type" \
          "the same again, which is refused while it does and else goes on from its last save:" \
          "./launch/tpu_pod.sh train$(printf ' %q' "$@")"
        return "$code" ;;
      *" READY")
        say "launch.train ended with $code; not preempted, so not started again"
        return "$code" ;;
    esac
    pause "preempted (exit code $code, the pod is $found)"
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

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' launch/tpu_pod.sh; }

refuse() { say "$1; see --help. Nothing was done"; exit 2; }

cd "$(dirname "$0")/.."
dry=
for word in "$@"; do  # each leaves at the front, and all but --dry_run come back behind the last
  shift
  case "$word" in
    --dry_run) dry=1 ;;
    -h | -help* | --help*) usage; exit ;;
    -dry_run* | --dry_run=* | -nodry_run* | --nodry_run*)
      refuse "expected --dry_run or nothing, got $word" ;;
    *) set -- "$@" "$word" ;;
  esac
done
: "${TPU:?set TPU to the name of the pod}" "${ZONE:?set ZONE to its zone}"
DIR=${DIR:-augjax} TO=${TO:-runs} EXTRAS=${EXTRAS:-tpu,store} RETRY_S=${RETRY_S:-30}
tpu=(gcloud compute tpus tpu-vm) queue=(gcloud compute tpus queued-resources)
action=${1:-none}
[ $# -eq 0 ] || shift
case "$action $#" in
  "create 0") ensure ;;
  "train "*) train "$@" ;;
  "collect "*) collect "$@" ;;
  "delete 0") delete ;;
  "create "* | "delete "*) refuse "expected nothing after $action, got $*" ;;
  *) refuse "expected create, train, collect or delete, got $action" ;;
esac
