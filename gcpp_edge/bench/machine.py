"""What a figure depends on: the processor, how it may run, the power mode, versions.

`root` is the root of the file system; tests make one.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path("/")
CPUS = "sys/devices/system/cpu"
RUNTIME_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "pycuda", "cuda-bindings")
_SECONDS = 5.0  # nvidia-smi answers at once, or not at all


def machine(root: Path = ROOT) -> dict[str, Any]:
    """Versions of this package, Python and the system, and the processor."""
    return {
        "gcpp_edge": version_of("gcpp-edge") or "not installed",
        "numpy": version_of("numpy") or "missing",
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor(root),
        "cores": len(allowed_cores()),
    }


def described(root: Path = ROOT) -> dict[str, Any]:
    """`machine`, how it runs, and versions of what is installed of the runtimes; without what it does not tell."""
    found = machine(root) | {
        "board": read_text(root / "proc/device-tree/model").strip("\0 \n"),
        "virtual": is_virtual(root),
        "governor": governor(root),
        "mhz_limits": mhz_limits(root),
        "boost": boost(root),
        "power_mode": power_mode(root),
        "gpu": nvidia_gpu(),
        "versions": {name: found for name in RUNTIME_PACKAGES if (found := version_of(name))},
    }
    return {name: value for name, value in found.items() if value not in ("", None, [], {})}


def version_of(package: str) -> str:
    """The installed version, "" for none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def allowed_cores() -> list[int]:
    """The numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def processor(root: Path = ROOT) -> str:
    """Its name."""
    lines = read_text(root / "proc/cpuinfo").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.processor() or "unknown"


def is_virtual(root: Path = ROOT) -> bool | None:
    """Whether a hypervisor lends the cores; None where that cannot be seen."""
    lines = read_text(root / "proc/cpuinfo").splitlines()
    flags = [line.split() for line in lines if line.startswith("flags")]
    return "hypervisor" in flags[0] if flags else None


def governor(root: Path = ROOT) -> str:
    """What chooses the clock of our cores: "schedutil", or several with a comma between; "" where nothing says."""
    found = {read_text(root / CPUS / f"cpu{core}/cpufreq/scaling_governor").strip() for core in allowed_cores()}
    return ", ".join(sorted(found - {""}))


def mhz_limits(root: Path = ROOT) -> list[float]:
    """[lowest, highest] that the governor may choose for our cores; [] where nothing says."""
    folders = [root / CPUS / f"cpu{core}/cpufreq" for core in allowed_cores()]
    lowest, highest = (
        [number(read_text(folder / f"scaling_{end}_freq")) for folder in folders] for end in ("min", "max")
    )
    return [min(lowest) / 1e3, max(highest) / 1e3] if all(lowest) and all(highest) else []


def mhz_now(root: Path = ROOT) -> float:
    """The clock of the fastest of our cores, 0 where nothing says. Idle ones are slow, and do none of the work."""
    cores = allowed_cores()
    from_sys = [number(read_text(root / CPUS / f"cpu{core}/cpufreq/scaling_cur_freq")) / 1e3 for core in cores]
    if any(from_sys):
        return max(from_sys)
    found, core = [0.0], ""
    for line in read_text(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "processor":
            core = value.strip()
        elif name.strip() == "cpu MHz" and core.isdigit() and int(core) in cores:
            found.append(number(value))
    return max(found)


def boost(root: Path = ROOT) -> str:
    """ "on" or "off": clocks above the nominal one, which no machine holds for long. "" where nothing says."""
    no_turbo = read_text(root / CPUS / "intel_pstate/no_turbo").strip()
    boosted = read_text(root / CPUS / "cpufreq/boost").strip()
    if no_turbo:
        return "off" if no_turbo == "1" else "on"
    return {"1": "on", "0": "off"}.get(boosted, "")


def power_mode(root: Path = ROOT) -> str:
    """Of a Jetson, as nvpmodel names it ("MAXN"), or by its number; "" elsewhere. Asking nvpmodel itself needs root."""
    found = re.search(r"^pmode:(\d+)", read_text(root / "var/lib/nvpmodel/status"), re.MULTILINE)
    if found is None:
        return ""
    mode = int(found[1])
    names = re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", read_text(root / "etc/nvpmodel.conf"))
    return next((name for number, name in names if int(number) == mode), f"mode {mode}")


def nvidia_gpu() -> dict[str, str]:
    """Name, driver, highest clocks and power limit of the first GPU, as nvidia-smi says them; {} without one."""
    asked = ("name", "driver_version", "clocks.max.sm", "clocks.max.mem", "power.limit")
    answer = said(["nvidia-smi", f"--query-gpu={','.join(asked)}", "--format=csv,noheader", "--id=0"])
    values = [value.strip() for value in answer.strip().partition("\n")[0].split(",")]
    return dict(zip(asked, values, strict=True)) if len(values) == len(asked) else {}


def said(command: list[str]) -> str:
    """What a program prints; "" where it is not there, refuses or hangs."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def read_text(path: Path) -> str:
    """What a file of the kernel says; "" where it is not there or does not let us."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def number(text: str) -> float:
    """Of a file of the kernel; 0 for what is no number."""
    try:
        return float(text)
    except ValueError:
        return 0.0
