#!/usr/bin/env bash
# Runs the tests. --parity adds those that compare with PyTorch, and installs it and ONNX for them.
# Two processes share the files of tests; further arguments go to pytest (-n 0: one process).
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh

if [ "${1:-}" = "--parity" ]; then
  shift
  make_environment test,peers,onnx
  # torchvision's wheel asks for a CUDA build of torch; its Python parts do without (DESIGN section 10)
  python -m pip install --quiet --disable-pip-version-check --no-deps torchvision==0.28.0 timm
  exec python -m pytest -n 2 --dist loadfile "$@"
fi
make_environment test
exec python -m pytest -n 2 --dist loadfile -m "not parity" "$@"
