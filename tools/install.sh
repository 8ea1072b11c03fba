#!/usr/bin/env bash
# Install the project, editable, into a virtual environment of its own.
#
#   tools/install.sh [EXTRA]      EXTRA: dev (tests and checkers) or nothing
#
# VENV is the environment's folder (default .venv), PYTHON the interpreter that makes it (default python3, 3.11 or newer).
# Without an NVIDIA GPU torch comes as a CPU build: left to itself, pip on Linux fetches 2.7 GB of CUDA packages.
# A second run installs only what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

extra=${1:-}
venv=${VENV:-.venv}
base=${PYTHON:-python3}
python=$venv/bin/python

fail() {
    echo "error: $1" >&2
    exit 1
}

make_environment() {
    command -v "$base" >/dev/null || fail "there is no '$base' here: name an interpreter of version 3.11 or newer with PYTHON="
    "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$base is $("$base" --version 2>&1), the project needs 3.11 or newer: name another interpreter with PYTHON="
    "$python" -m pip --version >/dev/null 2>&1 || "$base" -m venv "$venv" ||
        fail "$base cannot make a virtual environment in $venv: install its venv module (Debian and Ubuntu: apt install python3-venv)"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$venv holds $("$python" --version 2>&1), the project needs 3.11 or newer: remove $venv and try again"
}

has_gpu() {
    command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1
}

installed_torch() {
    "$python" -c 'from importlib.metadata import version; print(version("torch").split("+")[0])' 2>/dev/null || true
}

# A CPU build: from where pip is set up to look, or else by uv, which knows where PyTorch keeps its CPU builds.
install_cpu_torch() {
    local version
    version=$(sed -n 's/^torch==//p' constraints/cpu.txt)
    [ "$(installed_torch)" != "$version" ] || return 0
    if [ "$(uname -s)" != Linux ]; then # elsewhere every build runs on the CPU
        "$python" -m pip install --quiet "torch==$version" || fail "torch $version could not be installed; pip says why above"
        return 0
    fi
    echo "installing torch $version (CPU build)"
    "$python" -m pip install --quiet "torch==$version+cpu" 2>/dev/null && return 0
    echo "pip finds no CPU build where it is set up to look: asking uv"
    { "$python" -m pip install --quiet uv &&
        "$python" -m uv pip install --quiet --python "$python" --torch-backend=cpu "torch==$version"; } ||
        fail "no CPU build of torch $version can be had: check the network, or install one into $venv by hand and try again"
}

make_environment
constraints=constraints/gpu.txt
if ! has_gpu; then
    constraints=constraints/cpu.txt
    install_cpu_torch
fi
echo "installing osediff_exp${extra:+ with its extra '$extra'} into $venv ($constraints)"
"$python" -m pip install --quiet --constraint "$constraints" --editable ".${extra:+[$extra]}" ||
    fail "the installation failed; pip says why above"

# What make goes by. The dev installation includes the plain one.
touch "$venv/.installed-run"
if [ "$extra" = dev ]; then touch "$venv/.installed-dev"; fi
