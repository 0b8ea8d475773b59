#!/usr/bin/env bash
# The same training command on every worker of a TPU pod; JAX finds the other processes itself.
# Usage: TPU=NAME ZONE=ZONE [DIR=augjax] ./launch/tpu_pod.sh --config=... --workdir=...
# The checkout must lie in ~/$DIR on every worker, and the workdir where every worker can write.
# Exit code 75 means preempted: the same command continues.
set -euo pipefail
: "${TPU:?set TPU to the name of the pod}" "${ZONE:?set ZONE to its zone}"
arguments=$(printf ' %q' "$@")
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="
  cd ~/${DIR:-augjax} && source launch/environment.sh && make_environment tpu &&
  exec python -m launch.train$arguments"
