#!/usr/bin/env bash
# A TPU pod, and one training command on all of its workers, begun again as often as it is preempted.
#
#   ./launch/tpu_pod.sh [--dry_run] create
#   ./launch/tpu_pod.sh [--dry_run] train --config=... --workdir=gs://BUCKET/RUN [--config.a.b=c ...]
#   ./launch/tpu_pod.sh [--dry_run] collect --workdir=gs://BUCKET/RUN
#   ./launch/tpu_pod.sh [--dry_run] delete
#
# `train` makes the pod if there is none or it was taken away, copies this checkout to every worker,
# installs it and starts launch.train there; JAX finds the other processes by itself. Exit code 75
# (preempted, saved) or a pod that is gone: again. Any other code: that is the end, and its own.
# A connection that is lost (255) while the pod stays READY ends this script, perhaps not the
# training: the same words again are refused where it goes on, before anything is copied, and
# continue it where it ended.
# Only a pod that is PREEMPTED or TERMINATED is deleted, or a queued resource that FAILED or is
# SUSPENDED; passing states are waited for, others left to you: exit code 2. From the first wait on
# gcloud's failures (no capacity, no connection) are tried again; before, they end this script.
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

trap 'exit 130' INT  # in the midst of gcloud too
exec 3>&1
ask() {  # what a command prints; else GONE (there is no such thing), DENIED or UNANSWERED
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
    *PERMISSION_DENIED*) say "$errors"; echo DENIED ;;
    *) say "$errors"; echo UNANSWERED ;;
  esac
}

patient=
pause() {  # who has waited once goes on waiting: what fails then is tried again
  say "$1; again in $RETRY_S s"
  sleep "$RETRY_S"
  patient=1
}

state() {  # of the pod; where there is none, of its queued resource: "queued ACTIVE"
  local found
  found=$(ask "${tpu[@]}" describe "$TPU" --zone="$ZONE" --format="value(state)")
  if [ "$found" = GONE ] && [ -n "${QUEUED:-}" ]; then
    found="queued $(ask "${queue[@]}" describe "$TPU" --zone="$ZONE" --format="value(state.state)")"
  fi
  echo "$found"
}

on_all() { run "${tpu[@]}" ssh "$TPU" --zone="$ZONE" --worker=all --command="$1"; }

delete() {
  if [ -n "${QUEUED:-}" ]; then
    run "${queue[@]}" delete "$TPU" --zone="$ZONE" --force --quiet
  else
    run "${tpu[@]}" delete "$TPU" --zone="$ZONE" --quiet
  fi
}

can_create() {
  : "${TYPE:?set TYPE, such as v5litepod-16}" "${VERSION:?set VERSION, such as v2-alpha-tpuv5-lite}"
}

create() {
  can_create
  if [ -n "${QUEUED:-}" ]; then
    run "${queue[@]}" create "$TPU" --node-id="$TPU" --zone="$ZONE" --accelerator-type="$TYPE" \
      --runtime-version="$VERSION" ${SPOT:+--spot}
  else
    run "${tpu[@]}" create "$TPU" --zone="$ZONE" --accelerator-type="$TYPE" --version="$VERSION" \
      ${SPOT:+--spot}
  fi
}

until_ready() {  # makes the pod where there is none, and anew where it was taken away
  local found
  while true; do
    found=$(state)
    case "$found" in
      READY) return ;;
      GONE | "queued GONE") create || return ;;
      PREEMPTED | TERMINATED | "queued "FAILED | "queued "SUSPENDED)
        can_create
        delete || return
        pause "$TPU was $found and is deleted" ;;
      CREATING | STARTING | RESTARTING | REIMAGING | REPAIRING | HIDING | UNHIDING | STOPPING | \
        DELETING | "queued "CREATING | "queued "ACCEPTED | "queued "PROVISIONING | \
        "queued "WAITING* | "queued "ACTIVE | "queued "SUSPENDING | "queued "DELETING)
        pause "$TPU is $found" ;;
      *UNANSWERED) return 1 ;;
      *DENIED) return 2 ;;
      *)
        say "expected $TPU in $ZONE to be READY, got $found. It was left as it is: start it by" \
          "${tpu[*]} start $TPU --zone=$ZONE, or delete it, and type this again"
        return 2 ;;
    esac
    if [ -n "$dry" ]; then return; fi
  done
}

# JAX ends a run whose workers are joined a second time, before the lock of a run folder is looked
# at: so a worker has a lock of its own. Where it is held, that is code 11 (flock's EWOULDBLOCK).
# gcloud (528, tpu_vm/ssh.py) itself repeats a command up to 10 times after an ssh 255: what was
# begun first may still run there, and hold it.
lock="flock --nonblock --conflict-exit-code 11"

prepare() {  # this checkout, a Python that is new enough, and what both need
  on_all "$lock ~/.augjax_training true &&
mkdir -p ~/$DIR && { python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
{ sudo apt-get update && sudo apt-get install --yes python3.11 python3.11-venv; }; }" &&
    run "${tpu[@]}" scp --recurse --zone="$ZONE" --worker=all \
      augjax configs launch setup.py pyproject.toml "$TPU:~/$DIR" &&
    on_all "cd ~/$DIR && source launch/environment.sh && make_environment $EXTRAS"
}

ensure() {  # a pod that is ready for launch.train
  local code
  while true; do
    code=0
    { until_ready && prepare; } || code=$?
    case "$code ${patient:-0}" in
      "0 "* | "2 "*) return "$code" ;;
      "11 0") say "launch.train runs on $TPU; nothing was changed there"; return 2 ;;
      "11 1") pause "launch.train runs on $TPU" ;;
      *" 0") return "$code" ;;
      *) pause "$TPU could not be made ready (exit code $code)" ;;
    esac
  done
}

stays_ready() {  # CODE: whether the pod is READY after it
  local found looks=2  # one that was just taken away may still be called so
  case "$1" in [2-5]) looks=1 ;; esac  # launch.train's own
  while true; do
    found=$(state)
    case "$found" in
      READY) looks=$((looks - 1)) ;;
      UNANSWERED) ;;
      *) return 1 ;;
    esac
    if [ "$looks" -eq 0 ]; then return; fi
    pause "launch.train ended with $1, and $TPU is $found"
  done
}

commit() {  # of this checkout, as provenance.json tells it: a pod gets no .git
  if git ls-files --error-unmatch launch/tpu_pod.sh > /dev/null 2>&1; then
    git describe --always --dirty --abbrev=40 --exclude='*'
  else
    echo unknown
  fi
}

train() {
  local code
  require_shared "$@"
  while true; do
    ensure
    code=0
    on_all "cd ~/$DIR && exec 9> ~/.augjax_training && $lock 9 &&
source launch/environment.sh && make_environment $EXTRAS &&
export AUGJAX_POD=1 AUGJAX_COMMIT=$(commit) && exec python -m launch.train$(printf ' %q' "$@")" ||
      code=$?
    case "$code" in
      0) return ;;
      11) pause "launch.train runs on $TPU"; continue ;;
      75) pause "launch.train was preempted, and saved"; continue ;;
    esac
    if ! stays_ready "$code"; then
      pause "launch.train ended with $code, and $TPU is not READY"
    elif [ "$code" -eq 255 ]; then
      say "the connection to $TPU ended, and it is READY: launch.train may go on there. Type" \
        "the same again, which is refused while it does and else goes on from its last save:" \
        "./launch/tpu_pod.sh train$(printf ' %q' "$@")"
      return "$code"
    else
      say "launch.train ended with $code; not preempted, so not started again"
      return "$code"
    fi
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
