"""This machine: processor, instruction sets that matter to inference, memory, versions of the runtimes.

Only the standard library is used, and no runtime is imported: `doctor` and every report can afford it.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")
_STATUS = Path("/proc/self/status")

# Linux's words, also used for what macOS calls otherwise. x86 first, then Arm.
ISA_FLAGS = (
    "sse4_1",
    "avx",
    "f16c",
    "fma",
    "avx2",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "avx_vnni",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "fphp",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
    "sme",
)

# sysctl's names on Apple silicon (hw.optional.arm.FEAT_*) and on Intel Macs (machdep.cpu.*features).
_APPLE_ARM = {
    "AdvSIMD": ("asimd",),
    "FEAT_FP16": ("fphp", "asimdhp"),
    "FEAT_DotProd": ("asimddp",),
    "FEAT_I8MM": ("i8mm",),
    "FEAT_BF16": ("bf16",),
    "FEAT_SME": ("sme",),
}
_APPLE_X86 = {
    "SSE4.1": "sse4_1",
    "AVX1.0": "avx",
    "F16C": "f16c",
    "FMA": "fma",
    "AVX2": "avx2",
    "AVX512F": "avx512f",
    "AVX512BW": "avx512bw",
    "AVX512VNNI": "avx512_vnni",
}

# "CPU part" of /proc/cpuinfo for implementer 0x41 (Arm Ltd), which gives no model name.
_ARM_PARTS = {
    0xD03: "Cortex-A53",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD40: "Neoverse-V1",
    0xD41: "Cortex-A78",
    0xD44: "Cortex-X1",
    0xD49: "Neoverse-N2",
    0xD4F: "Neoverse-V2",
}

_PACKAGES = (
    "cspedge",
    "torch",
    "torchvision",
    "timm",
    "executorch",
    "torchao",
    "coremltools",
    "openvino",
    "onnxruntime",
    "onnx",
    "onnxscript",
)


@dataclass(frozen=True, kw_only=True)
class HostInfo:
    """The machine a figure was measured on.

    cpu: model name; cores: logical processors this process may use; isa: the flags of `ISA_FLAGS` it has, in that
    order, empty where the system does not tell; memory_mb: of the machine, MiB, None where the system does not tell.
    """

    cpu: str
    arch: str
    cores: int
    isa: tuple[str, ...]
    os: str
    memory_mb: int | None


def describe() -> HostInfo:
    """Reads /proc on Linux, sysctl on macOS; elsewhere only what Python itself knows. Never raises."""
    cpu = ""
    isa: tuple[str, ...] = ()
    memory_mb: int | None = None
    if _CPUINFO.is_file():
        cpu, isa = parse_cpuinfo(_read(_CPUINFO))
        found = re.search(r"^MemTotal:\s+(\d+) kB", _read(_MEMINFO), re.MULTILINE)
        memory_mb = int(found[1]) // 1024 if found else None
    elif sys.platform == "darwin":
        cpu, isa, memory_mb = parse_sysctl(_sysctl())
    return HostInfo(
        cpu=cpu or platform.processor() or platform.machine() or "unknown",
        arch=platform.machine(),
        cores=_usable_cores(),
        isa=isa,
        os=_os_name(),
        memory_mb=memory_mb,
    )


def parse_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    """Model name ("" where there is none) and inference flags from the text of Linux's /proc/cpuinfo.

    Processors of one machine can differ (big.LITTLE, hybrid x86): every kind is named, and only the flags all of
    them have count, since a thread may run on any.
    """
    names: list[str] = []
    common: set[str] | None = None
    for block in re.split(r"\n\s*\n", text.strip()):
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in block.splitlines())}
        name = fields.get("model name") or _arm_name(fields)
        if name and name not in names:
            names.append(name)
        flags = fields.get("flags") or fields.get("Features")
        if flags is not None:
            common = set(flags.split()) if common is None else common & set(flags.split())
    return " + ".join(names), _ordered(common or set())


def _arm_name(fields: dict[str, str]) -> str:
    implementer, part = fields.get("CPU implementer"), fields.get("CPU part")
    if implementer is None or part is None:
        return ""
    known = _ARM_PARTS.get(int(part, 16)) if int(implementer, 16) == 0x41 else None
    return f"Arm {known}" if known else f"Arm implementer {implementer} part {part}"


def parse_sysctl(text: str) -> tuple[str, tuple[str, ...], int | None]:
    """Model name, inference flags and memory in MiB from the text of macOS's `sysctl -a` ("name: value" lines)."""
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    flags: set[str] = set()
    for name, ours in _APPLE_ARM.items():
        if values.get(f"hw.optional.arm.{name}") == "1":
            flags.update(ours)
    words = f"{values.get('machdep.cpu.features', '')} {values.get('machdep.cpu.leaf7_features', '')}".split()
    flags.update(ours for name, ours in _APPLE_X86.items() if name in words)
    memory = values.get("hw.memsize", "")
    return values.get("machdep.cpu.brand_string", ""), _ordered(flags), int(memory) >> 20 if memory.isdigit() else None


def saturates_u8s8(isa: tuple[str, ...]) -> bool:
    """Whether uint8 x int8 products may saturate here: x86 with AVX2 and no VNNI (nor AMX).

    There kernels add pairs of products in int16 (VPMADDUBSW), which two products of 255 x 127 overflow. The same
    ONNX file of a MobileNetV3 scored 75.57 with VNNI and 70.78 without. XNNPACK multiplies in int16 and is exact.
    """
    return "avx2" in isa and not {"avx512_vnni", "avx_vnni", "amx_int8"} & set(isa)


def peak_rss_mb() -> float | None:
    """The largest resident set this process has had, MiB; None where the system does not tell (Windows).

    On Linux from VmHWM: getrusage's ru_maxrss survives exec, so a small process started by one of 800 MB reports
    800 MB (measured). Elsewhere ru_maxrss, which is in bytes on macOS and in KiB on the others.
    """
    peak = _resident("VmHWM")
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20) if sys.platform == "darwin" else most / 1024


def rss_mb() -> float | None:
    """The resident set of this process now, MiB; None where the system does not tell (macOS, Windows)."""
    return _resident("VmRSS")


def _resident(field: str) -> float | None:
    found = re.search(rf"^{field}:\s+(\d+) kB", _read(_STATUS), re.MULTILINE)
    return int(found[1]) / 1024 if found else None


def environment() -> dict[str, Any]:
    """The report's "environment": versions of what is installed (metadata only, nothing imported), cpu, isa, os.

    A package that is not installed is absent.
    """
    host = describe()
    found: dict[str, Any] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | {"cpu": host.cpu, "cores": host.cores, "isa": list(host.isa), "os": host.os}


def _ordered(flags: set[str]) -> tuple[str, ...]:
    return tuple(flag for flag in ISA_FLAGS if flag in flags)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _os_name() -> str:
    base = f"{platform.system()} {platform.release()} {platform.machine()}"
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]} {platform.machine()}"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {base}"
    except (OSError, KeyError):
        return base


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _sysctl() -> str:
    try:
        return subprocess.run(["sysctl", "-a"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
