"""The CUDA kernels as code: compiled by nvcc and NVRTC where they are, kept in the cache, and found again."""

import json
import os
import shutil
import stat
import subprocess
from types import SimpleNamespace

import pytest

from gcpp_edge.errors import MissingDependencyError, RuntimeFailure
from gcpp_edge.kernels import cuda_image, cuda_sources

NVCC = os.environ.get("GCPP_NVCC", shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin"))
ARCHS = (75, 80, 86, 87, 89, 90, 100, 110, 120)
KERNELS = (b"gcpp_cam_weights_f16_f32_cuda", b"gcpp_cam_sum_f32_cuda", b"gcpp_range_f32_cuda", b"gcpp_overlay_u8_cuda")
KERNELS += (b"gcpp_heatmap_u8_cuda", b"gcpp_guided_f16_cuda", b"gcpp_preprocess_f16_cuda")


@pytest.mark.skipif(not NVCC, reason="no nvcc here (GCPP_NVCC names it)")
def test_nvcc_compiles_them_for_every_architecture_without_warnings(tmp_path):
    known = subprocess.run([NVCC, "--list-gpu-code"], check=True, capture_output=True, text=True).stdout.split()
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in ARCHS if f"sm_{arch}" in known]
    assert codes
    source = cuda_sources.FOLDER / "cuda" / cuda_sources.MAIN
    flags = ["-std=c++17", "--threads=0", "-Werror", "all-warnings"]
    command = [NVCC, *flags, *codes, "-fatbin", "-o", str(tmp_path / "gcpp.fatbin"), str(source)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0 and not result.stderr, result.stderr


def real_nvrtc():
    try:
        return cuda_image._nvrtc((8, 7))
    except MissingDependencyError:
        pytest.skip("no NVRTC here (pip install cuda-bindings nvidia-cuda-nvrtc)")


def test_the_real_nvrtc_compiles_them_without_a_header_of_its_own():
    found = cuda_image.compile_image(real_nvrtc(), (8, 7))
    assert found[:4] == b"\x7fELF" and all(name in found for name in KERNELS)


def test_the_real_nvrtc_makes_ptx_for_a_gpu_newer_than_it():
    found = cuda_image.compile_image(real_nvrtc(), (99, 0))
    assert b".version" in found and all(name in found for name in KERNELS)


def test_every_source_is_among_the_sources():
    on_disk = {file.name for file in (cuda_sources.FOLDER / "cuda").iterdir() if file.suffix in (".cu", ".h")}
    assert set(cuda_sources.sources()) == on_disk | {"../arithmetic.h"}
    assert next(iter(cuda_sources.sources())) == "gcpp.cu"


@pytest.fixture
def built(tmp_path, monkeypatch):
    """Puts a built image in place of whatever the package has; without a call there is none."""
    fatbin, made_from = tmp_path / "gcpp.fatbin", tmp_path / "made_from.json"
    monkeypatch.setattr(cuda_image, "FATBIN", fatbin)
    monkeypatch.setattr(cuda_image, "MADE_FROM", made_from)

    def build(text):
        fatbin.write_bytes(b"built")
        made_from.write_text(text)

    return build


def made_from(archs, sources=None):
    return json.dumps({"sources": sources or cuda_sources.digest(), "archs": archs})


@pytest.mark.parametrize(
    "archs, capability, is_there",
    [
        ([75, 87], (7, 5), True),
        ([75, 87], (8, 7), True),
        ([80], (8, 9), True),  # machine code of an older minor version runs
        ([87], (8, 0), False),
        ([87], (7, 5), False),
        ([87], (12, 0), True),  # by its PTX
    ],
)
def test_an_image_that_was_built_serves_the_gpus_that_it_covers(built, archs, capability, is_there):
    built(made_from(archs))
    assert cuda_image.built_image(capability) == (b"built" if is_there else None)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"sources": "x"}', made_from([87], "of other sources")])
def test_an_image_of_other_sources_or_a_damaged_note_is_not_used(built, text):
    built(text)
    assert cuda_image.built_image((8, 7)) is None


class Nvrtc(SimpleNamespace):
    """The module cuda.bindings.nvrtc as far as it is used, with a list of what was compiled."""

    def __init__(self, failure=0):
        super().__init__(compiled=[], failure=failure)

    def nvrtcVersion(self):  # noqa: N802
        return 0, 13, 5

    def nvrtcGetSupportedArchs(self):  # noqa: N802
        return 0, [75, 80, 87, 90]

    def nvrtcCreateProgram(self, source, name, count, texts, names):  # noqa: N802
        assert name == b"gcpp.cu" and len(texts) == len(names) == count and b"#include" in source
        return 0, "program"

    def nvrtcCompileProgram(self, program, count, options):  # noqa: N802
        self.compiled.append(options[0].decode())
        return (self.failure,)

    def nvrtcGetProgramLogSize(self, program):  # noqa: N802
        return 0, 4

    def nvrtcGetProgramLog(self, program, buffer):  # noqa: N802
        buffer[:] = b"why\0"
        return (0,)

    def nvrtcGetCUBINSize(self, program):  # noqa: N802
        return 0, 5

    def nvrtcGetCUBIN(self, program, buffer):  # noqa: N802
        buffer[:] = b"cubin"
        return (0,)

    def nvrtcGetPTXSize(self, program):  # noqa: N802
        return 0, 3

    def nvrtcGetPTX(self, program, buffer):  # noqa: N802
        buffer[:] = b"ptx"
        return (0,)

    def nvrtcDestroyProgram(self, program):  # noqa: N802
        return (0,)


@pytest.fixture
def nvrtc(built, tmp_path, monkeypatch):
    """A fake NVRTC, an empty cache, and no built image."""
    fake = Nvrtc()
    monkeypatch.setattr(cuda_image, "_nvrtc", lambda capability: fake)
    return fake


def kept(tmp_path):
    (path,) = (tmp_path / "cache").iterdir()
    return path


def test_a_built_image_is_taken_before_nvrtc_is_looked_for(built, nvrtc):
    built(made_from([87]))
    assert cuda_image.image((8, 7)) == b"built" and not nvrtc.compiled


def test_it_is_compiled_once_and_kept_for_this_user_alone(nvrtc, tmp_path):
    assert cuda_image.image((8, 7)) == cuda_image.image((8, 7)) == b"cubin"
    assert nvrtc.compiled == ["--gpu-architecture=sm_87"]
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
    assert stat.S_IMODE(kept(tmp_path).stat().st_mode) == 0o600


def test_each_gpu_has_its_own(nvrtc):
    assert (cuda_image.image((8, 7)), cuda_image.image((12, 0)), cuda_image.image((8, 7))) == (
        b"cubin",
        b"ptx",
        b"cubin",
    )
    assert nvrtc.compiled == ["--gpu-architecture=sm_87", "--gpu-architecture=compute_90"]


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: data[:-1] + b"N"])
def test_a_damaged_one_is_compiled_again(nvrtc, tmp_path, damage):
    cuda_image.image((8, 7))
    path = kept(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    assert cuda_image.image((8, 7)) == b"cubin" and len(nvrtc.compiled) == 2
    assert cuda_image.image((8, 7)) == b"cubin" and len(nvrtc.compiled) == 2


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_others_could_have_written_is_not_trusted(nvrtc, tmp_path, what):
    cuda_image.image((8, 7))
    (kept(tmp_path) if what == "file" else tmp_path / "cache").chmod(0o777)
    assert cuda_image.image((8, 7)) == b"cubin" and len(nvrtc.compiled) == 2


def test_a_cache_that_cannot_be_written_is_no_error(nvrtc, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert cuda_image.image((8, 7)) == cuda_image.image((8, 7)) == b"cubin" and len(nvrtc.compiled) == 2


def test_other_sources_are_compiled_anew(nvrtc, tmp_path, monkeypatch):
    cuda_image.image((8, 7))
    monkeypatch.setattr(cuda_image, "digest", lambda: "0" * 64)
    cuda_image.image((8, 7))
    assert len(nvrtc.compiled) == 2 and len(list((tmp_path / "cache").iterdir())) == 2


def test_a_failure_to_compile_carries_nvrtcs_own_words(nvrtc):
    nvrtc.failure = 6
    with pytest.raises(RuntimeFailure, match="with --gpu-architecture=sm_87:\nwhy$"):
        cuda_image.image((8, 7))


def test_a_gpu_older_than_nvrtc_is_named(nvrtc):
    with pytest.raises(RuntimeFailure, match=r"capability 6.1; it begins at 75"):
        cuda_image.image((6, 1))


@pytest.mark.parametrize("error", [ModuleNotFoundError("no cuda"), RuntimeError("no libnvrtc.so.13")])
def test_without_image_and_nvrtc_it_says_what_to_install(built, monkeypatch, error):
    def fails(name):
        raise error

    monkeypatch.setattr(cuda_image, "import_module", fails)
    with pytest.raises(MissingDependencyError, match="capability 8.7.*pip install cuda-bindings nvidia-cuda-nvrtc"):
        cuda_image.image((8, 7))
