#!/usr/bin/env bash
# Teacher, distilled student, pruned student on real digits: nothing to download but packages.
# Usage: ./launch/quickstart.sh [--config.seed=1 ...]   (set WORKDIR=DIR to choose the run folder)
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
make_environment ""

workdir="${WORKDIR:-runs/quickstart-$(date +%Y%m%d-%H%M%S)}"
exec python -m launch.train --config=configs/quickstart.py --workdir="$workdir" "$@"
