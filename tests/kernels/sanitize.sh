#!/usr/bin/env bash
# The kernel tests on an extension, and on the CUDA kernels' emulator, built with AddressSanitizer and UndefinedBehaviorSanitizer;
# and on the kernels for 64-bit ARM with the latter.
#
#   PYTHON=.venv/bin/python tests/kernels/sanitize.sh [options of pytest]
#
# PYTHON must have Cython, setuptools, NumPy and pytest. Everything is built in a temporary folder; any finding ends the
# run with a status other than 0. Vector gathers and masked loads are invisible to AddressSanitizer: for those the tests
# put their inputs beside pages that may not be touched (tests/kernels/conftest.py).
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
python=$(realpath -s "${PYTHON:-python3}")
compiler=${CC:-gcc}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if ! command -v "$compiler" >/dev/null; then
    echo "sanitize: no $compiler here. Install it (apt install gcc), or name another with CC." >&2
    exit 2
fi

# A copy of what a build needs: nothing is left behind in the checkout, and no installed kernels are found by accident.
for part in gcpp_edge export kernels tests setup.py pyproject.toml MANIFEST.in README.md LICENSE; do
    [ -e "$root/$part" ] && cp -r "$root/$part" "$work/"
done
find "$work" -name '*.so' -delete

# -O1 keeps the reports readable. -fno-sanitize-recover: the first finding ends the process.
export GCPP_CFLAGS="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
export GCPP_LDFLAGS="-fsanitize=address,undefined"
# AddressSanitizer does not run under qemu-user; there, arrays lie between forbidden pages.
export GCPP_AARCH64_CFLAGS="-O1 -g -fsanitize=undefined -fno-sanitize-recover=all"
export GCPP_NVCC= # no fatbin: the CUDA kernels are tested in the emulator, which is compiled with the same flags
echo "sanitize: building in $work"
(cd "$work" && "$python" setup.py --quiet build --build-lib "$work/installed" >"$work/build.log" 2>&1) || {
    cat "$work/build.log" >&2
    exit 1
}
if ! compgen -G "$work/installed/gcpp_edge/kernels/_cpu*.so" >/dev/null; then
    cat "$work/build.log" >&2
    echo "sanitize: the extension was not built" >&2
    exit 1
fi
# With these gone, `import gcpp_edge` in this folder finds the build alone, not half of it and half of the checkout.
rm -rf "$work/gcpp_edge" "$work/export" "$work/kernels"

# Python is not built with the sanitizers, so their runtime is loaded before it. Leaks are not looked for: CPython and
# NumPy keep memory until the process ends, on purpose, and drown what the kernels (one malloc, one free) could leak.
# Python's own allocator is switched off, so that a heap error has its real block in the report.
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1
export UBSAN_OPTIONS=print_stacktrace=1
export PYTHONMALLOC=malloc
preload=$("$compiler" -print-file-name=libasan.so):$("$compiler" -print-file-name=libubsan.so)
cd "$work"
export PYTHONPATH=$work/installed
LD_PRELOAD=$preload "$python" - <<'CHECK'
from gcpp_edge.kernels import _cpu
print("sanitize: testing", _cpu.__file__)
assert "/installed/" in _cpu.__file__, "another build than the sanitized one is on the path"
CHECK
# --capture=sys: a report goes to the descriptor of stderr as the process ends, and must not end in pytest's pocket.
# NVRTC opens a library beside its own, and through the dlopen of AddressSanitizer does not find it.
LD_PRELOAD=$preload "$python" -m pytest -q -p no:cacheprovider --capture=sys tests/kernels -k "not gcpp_isa and not real_nvrtc" "$@"
