#!/bin/sh
# Pin every package of both images by version and hash, for Python 3.11 on Linux (hashes of both
# x86-64 and ARM are in):
#
#   deploy/docker/lock.sh
#
# Needs a package index. Then `make slim` and the tests say whether the result still serves.
set -eu
cd "$(dirname "$0")/../.."

SERVE="openvino grpc processors postgres signing tracing console s3"
COMPRESS="compress text processors signing simulate"

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools/env"
"$tools/env/bin/python" -m pip install --quiet uv

lock() { # NAME "EXTRAS" "EXCLUDED PACKAGES" REQUIREMENTS...
    name=$1 extras=$2 excluded=$3
    shift 3
    for extra in $extras; do set -- "$@" --extra "$extra"; done
    printf '%s\n' $excluded >"$tools/excluded"
    "$tools/env/bin/uv" pip compile --quiet --python-version 3.11 --generate-hashes \
        --python-platform x86_64-manylinux_2_28 --no-annotate \
        --excludes "$tools/excluded" --output-file "deploy/docker/$name.lock" \
        --custom-compile-command "deploy/docker/lock.sh; extras: ${extras:-none}" "$@"
}

printf 'pip\nsetuptools\n' >"$tools/build.in"
lock build "" "" "$tools/build.in"
# tokenizers asks for huggingface-hub to download with, which a server never does.
lock serve "$SERVE" "huggingface-hub" pyproject.toml
# Installed before, from the index that has it without CUDA.
lock compress "$COMPRESS" "torch" pyproject.toml
