# shellcheck shell=bash
# Sourced by the scripts beside it: a local environment in .venv, made once and kept up to date.
# Uses `python` from it afterwards; nothing outside the checkout is changed.

find_python() {
  for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
    if [ -z "$candidate" ] || ! command -v "$candidate" >/dev/null 2>&1; then continue; fi
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "augjax: needs Python 3.11 or newer; found $(python3 --version 2>&1 || echo none)." \
       "Install one (Debian: apt install python3 python3-venv) or set PYTHON=/path/to/python3." >&2
  return 1
}

# make_environment [EXTRAS]: installs ".[EXTRAS]" unless that was done already. Whatever the caller's
# options: exits with 2 where no Python can make an environment, with 69 where packages did not come.
make_environment() {
  local python stamp
  python=$(find_python) || exit 2
  stamp=".venv/augjax-${1:-plain}-$(cksum < setup.py | cut -d' ' -f1)"
  if [ ! -x .venv/bin/python ] || [ ! -f "$stamp" ]; then
    # an environment whose making was cut off has no pip yet
    .venv/bin/python -m pip --version >/dev/null 2>&1 || new_environment "$python"
    echo "augjax: installing into .venv (once) ..." >&2
    if ! { .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".${1:+[$1]}" &&
           touch "$stamp"; }; then
      echo "augjax: could not install augjax${1:+[$1]}: see pip's words above;" \
           "the next start tries again" >&2
      exit 69
    fi
  fi
  PATH="$PWD/.venv/bin:$PATH"
  unset PYTHONPATH PYTHONHOME
}

new_environment() {  # PYTHON; in a folder that was there already nothing is removed
  local version there
  there=$(ls -d .venv 2>/dev/null || true)
  if "$1" -m venv .venv; then return; fi
  [ -n "$there" ] || rm -rf .venv
  version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  echo "augjax: this Python cannot make environments." \
       "Debian and Ubuntu: apt install python$version-venv" >&2
  exit 2
}
