#!/usr/bin/env bash
# Builds PyCUDA from its source into an environment that has NumPy, setuptools and wheel.
#
#   benchmarks/install_pycuda.sh PYTHON [FOLDER]
#
# FOLDER holds pycuda-*.tar.gz, or a wheel of it, where there is no network. nvcc must be on the path. Without cuRAND, and
# linked against an empty driver of the right name: neither needs to be on the machine. Two to three minutes.
set -euo pipefail

python=$(realpath -s "$1") && wheels=${2:-}
wheels=${wheels:+$(realpath "$wheels")}
pip() { "$python" -m pip --disable-pip-version-check --quiet "$@"; }

folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
cd "$folder"
if [ -z "$wheels" ]; then
    pip download --no-deps --no-binary :all: --no-build-isolation pycuda
elif compgen -G "$wheels/pycuda-*.whl" >/dev/null; then
    pip install --no-index --find-links "$wheels" --no-deps pycuda
    exit
else
    cp "$wheels"/pycuda-*.tar.gz .
fi
tar xf pycuda-*.tar.gz --strip-components=1
mkdir stub && gcc -shared -Wl,-soname,libcuda.so.1 -o stub/libcuda.so -x c /dev/null
of_nvcc=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")
for toolkit in "${CUDA_HOME:-}" "$of_nvcc" /usr/local/cuda; do # an nvcc on the path may be a script elsewhere
    if [ -e "$toolkit/include/cuda.h" ]; then break; fi
done
"$python" configure.py --no-cuda-enable-curand --cuda-root="$toolkit" --cudadrv-lib-dir="$folder/stub"
pip install ${wheels:+--no-index --find-links "$wheels"} --no-build-isolation .
