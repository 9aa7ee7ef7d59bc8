"""What is read of a machine, from a file system that is made up."""

import pytest

from gcpp_edge.bench import gpu_clock
from gcpp_edge.bench import machine as facts
from gcpp_edge.bench.conditions import Watch, load_average, read

CPUINFO = """processor\t: 0
model name\t: A Processor
cpu MHz\t\t: 1800.500
flags\t\t: fpu hypervisor sse

processor\t: 1
model name\t: A Processor
cpu MHz\t\t: 2400.000
flags\t\t: fpu hypervisor sse
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    for module in ("machine", "conditions"):
        monkeypatch.setattr(f"gcpp_edge.bench.{module}.allowed_cores", lambda: [0, 1])
    return tmp_path


def put(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def per_core(name, *texts):
    return {f"sys/devices/system/cpu/cpu{core}/{name}": text for core, text in enumerate(texts)}


def test_a_machine_that_says_nothing_has_no_facts(root):
    assert (facts.governor(root), facts.mhz_limits(root), facts.mhz_now(root)) == ("", [], 0.0)
    assert (facts.boost(root), facts.power_mode(root), facts.is_virtual(root)) == ("", "", None)
    assert load_average(root) == 0.0 and read(root).total_s == 0.0
    seen = Watch(0.0, root=root).done()
    assert (seen.mhz, seen.slowed, seen.others, seen.steal) == ((), {}, 0.0, 0.0)


def test_a_virtual_machine_has_the_clocks_of_cpuinfo(root):
    put(root, {"proc/cpuinfo": CPUINFO, "proc/loadavg": "1.25 0.5 0.1 1/100 4711\n"})
    assert facts.processor(root) == "A Processor" and facts.is_virtual(root)
    assert facts.mhz_now(root) == 2400.0 and load_average(root) == 1.25


def test_governor_clocks_and_boost_are_those_of_our_cores(root):
    put(root, per_core("cpufreq/scaling_governor", "powersave\n", "schedutil\n"))
    put(root, per_core("cpufreq/scaling_cur_freq", "800000\n", "1900000\n"))
    put(root, per_core("cpufreq/scaling_min_freq", "400000\n", "400000\n"))
    put(root, per_core("cpufreq/scaling_max_freq", "2000000\n", "2200000\n", "5000000\n"))
    put(root, {"sys/devices/system/cpu/intel_pstate/no_turbo": "1\n"})
    assert facts.governor(root) == "powersave, schedutil"
    assert (facts.mhz_now(root), facts.mhz_limits(root), facts.boost(root)) == (1900.0, [400.0, 2200.0], "off")


def test_a_jetson_names_its_power_mode(root):
    put(root, {"var/lib/nvpmodel/status": "pmode:0002\n", "proc/device-tree/model": "Orin\0"})
    assert facts.power_mode(root) == "mode 2" and facts.described(root)["board"] == "Orin"
    conf = "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=2 NAME=MODE_30W >\nCPU_ONLINE CORE_0 1\n"
    put(root, {"etc/nvpmodel.conf": conf})
    assert facts.power_mode(root) == "MODE_30W"


def test_a_gpu_is_as_nvidia_smi_says(monkeypatch):
    said = ["A GPU, 570.1, 1980 MHz, 2619 MHz, 700.00 W\nanother, 1, 2, 3, 4\n", "No devices were found\n", ""]
    monkeypatch.setattr(facts, "said", lambda command: said.pop(0))
    assert list(facts.nvidia_gpu().values()) == ["A GPU", "570.1", "1980 MHz", "2619 MHz", "700.00 W"]
    assert facts.nvidia_gpu() == facts.nvidia_gpu() == {}


def ticks(*cores):
    """user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice."""
    return "cpu  1 2 3\n" + "".join(f"cpu{number} {' '.join(map(str, core))}\n" for number, core in enumerate(cores))


def test_what_others_and_the_hypervisor_took_is_told_from_idle_time(root, monkeypatch):
    own = iter((10.0, 10.5))
    monkeypatch.setattr("gcpp_edge.bench.conditions.time.process_time", lambda: next(own))
    monkeypatch.setattr("gcpp_edge.bench.conditions._TICKS_A_SECOND", 100)
    zeros = (0,) * 10
    put(root, {"proc/stat": ticks(zeros, zeros, (9999,) * 10)})
    watch = Watch(0.5, root=root)
    # of two seconds: 0.5 by us, 0.4 by others, 0.1 stolen, one idle; the third core is not ours, guests are users
    put(root, {"proc/stat": ticks((30, 10, 10, 45, 0, 0, 0, 5, 30, 0), (20, 0, 20, 40, 15, 0, 0, 5, 0, 0), (1,) * 10)})
    seen = watch.done()
    assert (seen.busy, seen.others, seen.steal) == pytest.approx((0.25, 0.20, 0.05))
    assert (seen.cores, seen.load) == (2, 0.5)


def test_of_a_moment_no_shares_are_told_since_the_kernel_counts_hundredths(root):
    put(root, {"proc/stat": ticks((0,) * 10, (0,) * 10)})
    watch = Watch(0.0, root=root)
    put(root, {"proc/stat": ticks((20, 0, 0, 0, 0, 0, 0, 20, 0, 0), (0,) * 10)})
    seen = watch.done()
    assert (seen.busy, seen.others, seen.steal) == (0.0, 0.0, 0.0)


def test_what_slows_a_machine_down_is_counted_from_the_first_reading(root):
    throttle = "thermal_throttle/core_throttle_count"
    put(root, per_core(throttle, "5\n", "7\n") | {"sys/fs/cgroup/cpu.stat": "nr_periods 9\nnr_throttled 4\n"})
    put(root, {"sys/class/hwmon/hwmon3/oc1_event_cnt": "2\n"})
    watch = Watch(0.0, root=root)
    put(root, per_core(throttle, "6\n", "9\n") | {"sys/fs/cgroup/cpu.stat": "nr_periods 99\nnr_throttled 14\n"})
    put(root, {"sys/class/hwmon/hwmon3/oc1_event_cnt": "3\n"})
    assert watch.done().slowed == {"heat": 3, "the processor-time limit of its container": 10, "over-current": 1}


def test_the_clock_is_noted_now_and_then(root):
    now = [100.0]
    put(root, {"proc/cpuinfo": CPUINFO})
    watch = Watch(0.0, root=root)
    for now[0] in (1e6, 1e6 + 0.1, 1e6 + 0.3):
        watch.look(clock=lambda: now[0])
    assert watch.done().mhz == (2400.0,) * 3  # twice in between, and at last


class Nvml:
    """As the driver's library; `missing` calls are none."""

    def __init__(self, mhz=1500, bits=0, status=0, missing=()):
        self.mhz, self.bits, self.status, self.missing, self.index = mhz, bits, status, missing, None

    def __getattribute__(self, name):
        if name.startswith("nvml") and name in object.__getattribute__(self, "missing"):
            raise AttributeError(name)
        return object.__getattribute__(self, name)

    def nvmlInit_v2(self):  # noqa: N802
        return self.status

    def nvmlDeviceGetHandleByIndex_v2(self, index, handle):  # noqa: N802
        self.index, handle._obj.value = index.value, 4711
        return 0

    def nvmlDeviceGetClockInfo(self, device, kind, mhz):  # noqa: N802
        assert (device.value, kind) == (4711, 1)
        mhz._obj.value = self.mhz
        return 0

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, device, bits):  # noqa: N802
        bits._obj.value = self.bits
        return 0


@pytest.fixture
def nvml(monkeypatch):
    library = Nvml()
    monkeypatch.setattr(gpu_clock, "CDLL", lambda name: library)
    return library


@pytest.mark.parametrize(
    ("bits", "reasons"), [(0, set()), (0x1, set()), (0x44, {"power limit", "heat"}), (0x60, {"heat"}), (1 << 62, set())]
)
def test_why_a_gpu_is_slow_is_told_by_its_bits(nvml, bits, reasons):
    nvml.bits = bits
    assert gpu_clock.GpuClock().slowed_by() == reasons


def test_a_watch_notes_the_gpu_s_clock_and_how_often_it_was_held_down(nvml, root):
    watch = Watch(0.0, with_gpu=True, root=root)
    for nvml.mhz, nvml.bits in ((1500, 0), (1200, 0x40)):
        watch.look(every_s=0.0)
    seen = watch.done()
    assert seen.gpu_mhz == (1500, 1200, 1200) and seen.slowed == {"the GPU's heat": 2}


@pytest.mark.parametrize(("visible", "index"), [("", 0), ("2,0", 2), ("GPU-8932f937", 0)])
def test_the_gpu_is_the_first_that_is_visible(nvml, monkeypatch, visible, index):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpu_clock.GpuClock()
    assert nvml.index == index


def test_without_nvml_a_jetson_s_kernel_says_the_clock(nvml, root):
    put(root, {"sys/class/devfreq/17000000.gpu/cur_freq": "1300500000\n", "sys/class/devfreq/emc/cur_freq": "9\n"})
    for nvml.status, nvml.missing in ((9, ()), (0, ("nvmlInit_v2",))):
        clock = gpu_clock.GpuClock(root)
        assert clock.mhz() == 1300.5 and clock.slowed_by() == set()


def test_without_a_driver_a_gpu_says_nothing(root):
    clock = gpu_clock.GpuClock(root, "libgcpp-no-such-library.so")
    assert clock.mhz() == 0.0 and clock.slowed_by() == set()


def test_a_program_that_is_not_there_fails_or_hangs_says_nothing(monkeypatch):
    assert facts.said(["gcpp-no-such-program"]) == "" and facts.said(["false"]) == ""
    monkeypatch.setattr(facts, "_SECONDS", 0.1)
    assert facts.said(["sleep", "5"]) == "" and facts.said(["echo", "x"]) == "x\n"
