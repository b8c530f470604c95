#!/usr/bin/env bash
# Creates a virtual environment with this source tree's package, on a worker or a GPU node.
#
#   install.sh [tpu|cuda12|cpu] [EXTRAS]
#
# Needs Python 3.11 or newer. The image of TPU v4 (tpu-ubuntu2204-base) has 3.10; if no newer Python
# is found, uv installs one (a single program from the package index, without root rights). Versions
# are pinned by constraints.txt, for Linux on x86-64. Does nothing if the same is installed already.
#
# Not run on a TPU VM; tests/launch/test_tpu_vm.py runs it with fakes of python and uv.
set -euo pipefail

backend=${1:-tpu}
extras=${2:-}
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv=${MCJAX_VENV:-$HOME/mcjax_venv}
case $backend in
    tpu | cuda12) jax="jax[$backend]" ;;
    cpu) jax=jax ;;
    *) echo "install.sh: error: '$backend' is no backend; use tpu, cuda12 or cpu" >&2; exit 2 ;;
esac

wanted="$backend $extras $(cat "$tree/pyproject.toml" "$tree/constraints.txt" | sha256sum)"
if [ "$(cat "$venv/installed" 2>/dev/null || true)" = "$wanted" ]; then
    echo "$venv is up to date"
    exit 0
fi

make_venv() {
    local python
    for python in python3.12 python3.11 python3.13 python3; do
        if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            "$python" -m venv "$venv"
            return
        fi
    done
    python3 -m pip install --quiet --user uv
    python3 -m uv venv --quiet --seed --clear --python 3.12 "$venv"
}

[ -x "$venv/bin/pip" ] || make_venv
"$venv/bin/pip" install --quiet -c "$tree/constraints.txt" -e "$tree${extras:+[$extras]}" "$jax"
# Do not list the devices: on a slice of several hosts that waits for all hosts.
(cd "$tree" && "$venv/bin/python" -c 'import jax, mcjax; print("mcjax with jax", jax.__version__)')
echo "$wanted" >"$venv/installed"
