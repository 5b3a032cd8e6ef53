"""Whether an artifact's answers, measured here, hold on other processors: the C++ example under QEMU's user emulation.

    apt-get install qemu-user g++-aarch64-linux-gnu nlohmann-json3-dev libssl-dev
    dpkg --add-architecture arm64 && apt-get update && apt-get install libssl-dev:arm64 libstdc++6:arm64
    python benchmarks/other_cpus.py BUNDLE ../shared/data/caltech101/val --work DIR [--count 400]

BUNDLE is what `cspedge bundle` made for ExecuTorch or OpenVINO. For x86 processors the runtimes are this environment's;
for Arm their aarch64 wheels of the same versions, which pip downloads. Emulation runs the very kernels that the runtime
picks for that processor, instruction by instruction, so it says what they compute and nothing of their speed. The last
column is the bundle's own self-test there: the largest distance to golden/, of which more than 1 tolerance is refused.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RUNTIMES = ("executorch", "openvino")
# Names of QEMU's processors. Haswell: AVX2, no VNNI; Denverton: SSE 4.2; Cortex-A76: dot product; A53: without
CPUS = {"Haswell": "x86_64", "Denverton": "x86_64", "cortex-a76": "aarch64", "cortex-a53": "aarch64"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path, help="folder of photographs, one folder per class")
    parser.add_argument("--work", type=Path, required=True, help="folder for builds and outputs")
    parser.add_argument("--count", type=int, help="images, evenly spread; all without it")
    parser.add_argument("--cpus", nargs="*", choices=list(CPUS), default=list(CPUS))
    arguments = parser.parse_args()
    if platform.machine() != "x86_64":
        sys.exit(f"this compares with an x86-64 machine's answers and runs on one, not on {platform.machine()}")

    from cspedge.evaluate.metrics import sqnr_db

    arguments.work.mkdir(parents=True, exist_ok=True)
    manifest = json.loads((arguments.bundle / "manifest.json").read_text(encoding="utf-8"))
    tensors = arguments.work / "images.u8"
    count = _tensors(manifest, arguments.images, arguments.count, tensors)
    programs = {machine: _build(machine, arguments.work) for machine in {"x86_64", *(CPUS[c] for c in arguments.cpus)}}
    same_here = f"same top-1 as here (n = {count:,})"
    print(f"| artifact | processor | {same_here} | equal to the bit | SQNR to here, dB | golden/, in tolerances |")
    print("|---|---|---|---|---|---|")
    for artifact in manifest["artifacts"]:
        if artifact["backend"] not in RUNTIMES:
            continue
        label = f"{artifact['target']}/{artifact['precision']}"
        told = [str(arguments.bundle.absolute()), "--bench", "--artifact", label, "--warmup", "0", "--rounds", "0"]
        given = [*told, "--tensors", str(tensors)]
        here = _outputs([str(programs["x86_64"])], given, arguments.work / "here.f32", count)
        if isinstance(here, str):
            sys.exit(f"{label} does not run on this machine: {here}")
        for cpu in arguments.cpus:
            command = [*_emulator(cpu), str(programs[CPUS[cpu]])]
            found = _outputs(command, given, arguments.work / f"{cpu}.f32", count)
            if isinstance(found, str):
                print(f"| {label} | {cpu} | not run: {found} | | | |", flush=True)
                continue
            same = float((found.argmax(1) == here.argmax(1)).mean())
            equal = float((found == here).all(1).mean())
            noise = "" if equal == 1 else f"{sqnr_db(here, found):.1f}"
            golden = _golden(command, told, artifact, arguments.bundle, arguments.work / f"{cpu}.golden.f32")
            print(f"| {label} | {cpu} | {same:.2%} | {equal:.2%} | {noise} | {golden:.2g} |", flush=True)


def _tensors(manifest: dict[str, Any], folder: Path, count: int | None, out: Path) -> int:
    """Writes uint8 [n, 3, H, W] by the bundle's own contract."""
    import numpy as np

    from cspedge import api
    from cspedge.bundle import pixels
    from cspedge.data.images import decode_listed

    listed = api.list_images(folder, "val")
    chosen = np.linspace(0, len(listed) - 1, min(count or len(listed), len(listed))).astype(int)
    with out.open("wb") as file:
        for index in chosen:
            rgb = np.asarray(decode_listed(listed, int(index)).image)
            file.write(pixels.tensor(rgb, manifest["preprocess"]).tobytes())
    return len(chosen)


def _build(machine: str, work: Path) -> Path:
    """The C++ example for this machine or, cross-compiled, for Arm."""
    from cspedge.devices import runner

    build = work / f"build-{machine}"
    if machine == "x86_64":
        site, options = Path(str(importlib.metadata.distribution("executorch").locate_file(""))), []
    else:
        site, options = runner.arm_site(RUNTIMES, work), runner.arm_options()
    found = ";".join(str(site / name) for name in RUNTIMES)
    cmake = str(Path(sys.executable).with_name("cmake"))
    told = [cmake, "-S", str(ROOT / "apps" / "cpp"), "-B", str(build), f"-DCMAKE_PREFIX_PATH={found}", *options]
    for command in (told, [cmake, "--build", str(build)]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return build / "cspedge-runner"


def _emulator(cpu: str) -> list[str]:
    return [f"qemu-{CPUS[cpu]}", "-cpu", cpu]


def _golden(command: list[str], told: list[str], artifact: dict[str, Any], bundle: Path, out: Path) -> float:
    """The largest distance to the bundle's golden answers, in their tolerances: more than 1 fails its self-test."""
    import numpy as np

    images = len(json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["golden"]["images"])
    found = _outputs(command, told, out, images)  # without --tensors it takes golden's own
    if isinstance(found, str):
        sys.exit(f"golden/ cannot be replayed: {found}")
    expected = [np.fromfile(bundle / entry["file"], "<f4").reshape(images, -1) for entry in artifact["golden"]]
    allowed = [np.full(e.shape[1], g["max_abs"]) for e, g in zip(expected, artifact["golden"], strict=True)]
    return float((np.abs(found - np.concatenate(expected, axis=1)) / np.concatenate(allowed)).max())


def _outputs(command: list[str], told: list[str], out: Path, count: int) -> Any:
    """float32 [n, values], or why there are none."""
    import numpy as np

    done = subprocess.run([*command, *told, "--outputs", str(out)], capture_output=True, text=True, check=False)
    if done.returncode:
        return " ".join(done.stderr.split())[-160:]
    return np.fromfile(out, "<f4").reshape(count, -1)


if __name__ == "__main__":
    main()
