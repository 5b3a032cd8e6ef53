"""How often a bench finds a difference where there is none, and how often its noise check refuses to look for one.

    python benchmarks/noise.py [MODEL] [--target onnxruntime] [--benches 5] [--arms 6]

One float artifact stands `arms` times in the list of every bench, so every pair of entries is an A/A test. "false":
pairs whose 95 % interval does not hold 1, as a share of all pairs. "refused": pairs that would have refused as the
bench's noise check (that, or an interval too wide). "false, not refused": pairs whose interval does not hold 1 though
a check that does not refuse stands beside them, as a share of all pairs and checks without an entry in common. The
last row is a simulation of a machine that is as quiet as a machine can be: every sample independent of all others.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cspedge.devices.line import Line
    from cspedge.evaluate.timing import NoiseCheck, Timed
    from cspedge.types import Artifact

ROUNDS = PER_ROUND = 10
QUIET = 40  # simulated benches


def lowered(model: str | None, target: str, workspace: Path) -> tuple[Artifact, tuple[int, ...]]:
    """The model's float artifact, which needs no images, and the shape of one, [3, H, W]."""
    from cspedge.pipeline import RunOptions, Upto, execute
    from cspedge.types import Precision

    options = RunOptions(
        model=model, targets=(target,), precisions=(Precision.FP32,), workspace=workspace, out=workspace / "out"
    )
    outcome = execute(options, Upto.LOWER)
    (found,) = outcome.results
    if found.artifact is None:
        raise SystemExit(found.reason)
    return found.artifact, outcome.info.preprocess.input_size


def fresh(artifact: Artifact, arms: int, seed: int, tensors: Path, shape: tuple[int, ...]) -> list[Timed]:
    """One bench of `cspedge bench`: a process for each entry and round."""
    from cspedge.devices import pinning, rounds
    from cspedge.devices.fresh import Job, burst
    from cspedge.digest import sha256_path
    from cspedge.evaluate.latency import round_order
    from cspedge.evaluate.steady import CAP

    job = Job(
        label=artifact.label,
        backend=artifact.backend,
        path=str(artifact.path),
        sha256=artifact.sha256,
        options={},
        tensors=str(tensors),
        shape=shape,
        threads=1,
        count=CAP + PER_ROUND,
    )
    digest = sha256_path(tensors)
    lines: dict[str, list[Line]] = {str(arm): [] for arm in range(arms)}
    for names in round_order(tuple(lines), rounds=ROUNDS, seed=seed):
        for name in names:
            with pinning.pinned(pinning.choose(1)):
                lines[name].append(burst(job, digest))
    return [rounds.timed(found, PER_ROUND) for found in lines.values()]


def in_process(artifact: Artifact, arms: int, seed: int, tensors: Path, shape: tuple[int, ...]) -> list[Timed]:
    """One bench of `cspedge run`."""
    import numpy as np

    from cspedge import api
    from cspedge.evaluate.latency import bench
    from cspedge.evaluate.timing import Timed

    image = np.fromfile(tensors, np.uint8).reshape(1, *shape).astype(np.float32) / np.float32(255)
    session = api.open_session(artifact)
    found = bench({str(a): session for a in range(arms)}, image, rounds=ROUNDS, per_round=PER_ROUND, seed=seed)
    return [Timed(samples_ms=samples, load_ms=(0.0,)) for samples in found.samples.values()]


def quiet(arms: int, seed: int) -> list[Timed]:
    """Independent samples that spread by 2 %."""
    import numpy as np

    from cspedge.evaluate.timing import Timed

    rng = np.random.default_rng(seed)
    shape = (ROUNDS, PER_ROUND)
    return [Timed(samples_ms=rng.lognormal(0.0, 0.02, shape), load_ms=(0.0,)) for _ in range(arms)]


def row(name: str, benches: Sequence[Sequence[Timed]]) -> str:
    """One line of the table."""
    import numpy as np

    from cspedge.evaluate.noise import check

    pairs: list[NoiseCheck] = []
    missed: list[bool] = []
    for bench in benches:
        here = {pair: check("it", *(bench[i] for i in pair), seed=0) for pair in combinations(range(len(bench)), 2)}
        pairs += here.values()
        for (one, found), (other, beside) in combinations(here.items(), 2):
            if not set(one) & set(other):
                missed += [_false(found) and beside.conclusive, _false(beside) and found.conclusive]
    wide = np.median([pair.ci95[1] - pair.ci95[0] for pair in pairs])
    shares = (
        np.mean([_false(p) for p in pairs]),
        np.mean([not p.conclusive for p in pairs]),
        np.mean(missed),
    )
    cells = [name, len(benches), len(pairs), *(f"{share:.0%}" for share in shares), f"{wide:.3f}"]
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _false(found: NoiseCheck) -> bool:
    return not found.ci95[0] <= 1 <= found.ci95[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--target", default="onnxruntime")
    parser.add_argument("--benches", type=int, default=5, help="in fresh processes; in one process four times as many")
    parser.add_argument("--arms", type=int, default=6, help="4 or more")
    arguments = parser.parse_args()

    import numpy as np

    from cspedge.devices.host import describe

    host = describe()
    with tempfile.TemporaryDirectory() as folder:
        artifact, shape = lowered(arguments.model, arguments.target, Path(folder))
        tensors = Path(folder) / "inputs.u8"
        tensors.write_bytes(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8).tobytes())
        given = (artifact, arguments.arms)
        print(f"{host.cpu}, {host.cores} cores; load {os.getloadavg()[0]:.1f} before", flush=True)
        print("| protocol | benches | pairs | false | refused | false, not refused | median width |")
        print("|---" * 7 + "|")
        many = range(4 * arguments.benches)
        print(row("in-process", [in_process(*given, seed, tensors, shape) for seed in many]), flush=True)
        few = range(arguments.benches)
        print(row("fresh-process", [fresh(*given, seed, tensors, shape) for seed in few]), flush=True)
    print(row("simulated", [quiet(arguments.arms, seed) for seed in range(QUIET)]))
    print(f"load {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
