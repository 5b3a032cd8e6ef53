"""This host as it is, and the texts of other machines' /proc/cpuinfo and sysctl."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from cspedge.devices import host
from cspedge.digest import canonical_json

XEON = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
flags\t\t: fpu sse sse2 ssse3 fma cx16 sse4_1 sse4_2 avx f16c avx2 avx512f avx512bw avx_vnni avx512_bf16 avx512_vnni \
amx_bf16 avx512_fp16 amx_tile amx_int8

processor\t: 1
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
flags\t\t: fpu sse sse2 ssse3 fma cx16 sse4_1 sse4_2 avx f16c avx2 avx512f avx512bw avx_vnni avx512_bf16 avx512_vnni \
amx_bf16 avx512_fp16 amx_tile amx_int8
"""

RASPBERRY_PI_5 = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

Revision\t: d04170
Serial\t\t: 0000000000000000
Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""

BIG_LITTLE = """\
processor\t: 0
Features\t: fp asimd fphp asimdhp asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd05

processor\t: 1
Features\t: fp asimd fphp asimdhp asimddp i8mm
CPU implementer\t: 0x51
CPU part\t: 0x001
"""

APPLE_M1 = """\
machdep.cpu.brand_string: Apple M1
hw.memsize: 17179869184
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_BF16: 0
hw.optional.arm.FEAT_I8MM: 0
hw.optional.arm.AdvSIMD: 1
hw.optional.arm.FEAT_FP16: 1
hw.optional.arm.FEAT_SME: 0
"""

INTEL_MAC = """\
machdep.cpu.brand_string: Intel(R) Core(TM) i9-9880H CPU @ 2.30GHz
machdep.cpu.features: FPU SSE SSE2 SSSE3 FMA CX16 SSE4.1 SSE4.2 AES XSAVE OSXSAVE AVX1.0 RDRAND F16C
machdep.cpu.leaf7_features: RDWRFSGS BMI1 AVX2 SMEP BMI2 ERMS
hw.memsize: 34359738368
"""

linux_only = pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="reads /proc, which this system lacks")


def test_this_host() -> None:
    info = host.describe()
    assert info.cpu
    assert info.arch == platform.machine()
    assert info.cores >= 1
    assert platform.release() in info.os or info.os.startswith("macOS")
    assert set(info.isa) <= set(host.ISA_FLAGS)
    assert info == host.describe()


@linux_only
def test_this_host_on_linux_has_its_base_instructions_and_memory() -> None:
    info = host.describe()
    assert {"x86_64": "sse4_1", "aarch64": "asimd"}.get(info.arch) in (*info.isa, None)
    assert info.memory_mb is not None
    assert info.memory_mb > 256


def test_xeon() -> None:
    cpu, isa = host.parse_cpuinfo(XEON)
    assert cpu == "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"
    assert isa == (
        *("sse4_1", "avx", "f16c", "fma", "avx2", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"),
        *("avx512_fp16", "avx_vnni", "amx_bf16", "amx_int8"),
    )
    assert not host.saturates_u8s8(isa)


def test_arm_has_no_model_name_but_a_part() -> None:
    assert host.parse_cpuinfo(RASPBERRY_PI_5) == ("Arm Cortex-A76", ("asimd", "fphp", "asimdhp", "asimddp"))


def test_unlike_cores_count_only_what_all_have() -> None:
    cpu, isa = host.parse_cpuinfo(BIG_LITTLE)
    assert cpu == "Arm Cortex-A55 + Arm implementer 0x51 part 0x001"
    assert isa == ("asimd", "fphp", "asimdhp", "asimddp")


def test_cpuinfo_that_says_nothing() -> None:
    assert host.parse_cpuinfo("") == ("", ())


def test_sysctl() -> None:
    assert host.parse_sysctl(APPLE_M1) == ("Apple M1", ("asimd", "fphp", "asimdhp", "asimddp"), 16384)
    cpu, isa, memory_mb = host.parse_sysctl(INTEL_MAC)
    assert cpu == "Intel(R) Core(TM) i9-9880H CPU @ 2.30GHz"
    assert isa == ("sse4_1", "avx", "f16c", "fma", "avx2")
    assert memory_mb == 32768
    assert host.parse_sysctl("") == ("", (), None)


@pytest.mark.parametrize(
    ("isa", "saturates"),
    [
        (("avx", "fma", "avx2"), True),
        (("avx2", "avx512f", "avx512bw"), True),
        (("avx2", "avx_vnni"), False),
        (("avx2", "avx512f", "avx512_vnni"), False),
        (("avx2", "amx_int8"), False),
        (("asimd", "asimddp"), False),
        ((), False),
    ],
)
def test_saturation_is_avx2_without_vnni(isa: tuple[str, ...], saturates: bool) -> None:
    assert host.saturates_u8s8(isa) is saturates


def test_peak_rss_grows_with_what_is_touched() -> None:
    code = (
        "from cspedge.devices.host import peak_rss_mb\n"
        "before = peak_rss_mb(); block = bytearray(64 << 20); block[::4096] = b'x' * len(block[::4096])\n"
        "print(before, peak_rss_mb())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    before, after = (float(v) for v in out.split())
    assert 3.0 < before < 200.0  # MiB: neither KiB nor bytes
    assert 50.0 < after - before < 80.0


@linux_only
def test_peak_rss_is_not_the_parents() -> None:
    """A process started by a large one: getrusage gives the parent's peak, which would end in the report."""
    code = (
        "import subprocess, sys\n"
        "block = bytearray(300 << 20); block[::4096] = b'x' * len(block[::4096])\n"
        "child = 'import resource; from cspedge.devices.host import peak_rss_mb;'\n"
        "child += 'print(peak_rss_mb(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)'\n"
        "print(subprocess.run([sys.executable, '-c', child], capture_output=True, text=True, check=True).stdout)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    ours, _ = (float(v) for v in out.split())
    assert ours < 200.0


def test_environment_is_versions_without_imports() -> None:
    code = (
        "import sys, json; from cspedge.devices.host import environment; found = environment();"
        "heavy = {'torch', 'onnxruntime', 'openvino', 'coremltools', 'executorch', 'timm', 'onnx'} & set(sys.modules);"
        "print(json.dumps([found, sorted(heavy)]))"
    )
    import json

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    found, heavy = json.loads(out)
    assert heavy == []
    assert found == host.environment()
    assert found["python"] == platform.python_version()
    assert found["torch"] == importlib.metadata.version("torch")
    assert found["isa"] == list(host.describe().isa)
    canonical_json(found)


def test_what_is_not_installed_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_PACKAGES", ("numpy", "cspedge-no-such-package"))
    found = host.environment()
    assert sorted(found) == ["cores", "cpu", "isa", "numpy", "os", "python"]
