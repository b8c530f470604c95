#!/bin/sh
# On the host without internet, from the repository's root: installs the wheels that travelled, beside what is there,
# and measures. The arguments are those of benchmarks.accelerator.
set -eu
cd "$(dirname "$0")/../.."
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if ls .wheels/*.whl >/dev/null 2>&1; then
    python3 -m pip install --quiet --no-index --no-deps --no-compile --target "$site" .wheels/*.whl
fi
PYTHONPATH="$site:$PWD" python3 -m benchmarks.accelerator "$@"
