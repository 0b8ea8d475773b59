#!/usr/bin/env bash
# Runs the tests. --parity adds those that compare with PyTorch, and installs it for them.
# Further arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh

if [ "${1:-}" = "--parity" ]; then
  shift
  make_environment test,peers
  # torchvision's wheel asks for a CUDA build of torch; its Python parts do without (DESIGN section 10)
  python -m pip install --quiet --disable-pip-version-check --no-deps torchvision==0.28.0 timm
  exec python -m pytest "$@"
fi
make_environment test
exec python -m pytest -m "not parity" "$@"
