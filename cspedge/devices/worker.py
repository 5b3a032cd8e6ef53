"""`python -m cspedge.devices.worker JOB`: one artifact in a process of its own, timed as the native runner times it.

JOB is a JSON object (`cspedge.devices.fresh.Job`); what is printed is the native runner's line (`devices/line.py`).
The runtime's Python package is imported before the clock starts: an app has it linked in.
"""

from __future__ import annotations

import gc
import importlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cspedge.devices.fresh import Job

# What a backend's `load` and a session's `run` import.
_IMPORTS = {
    "coreml": ("coremltools", "cspedge.backends.coreml.session"),
    "executorch": ("torch", "executorch.extension.pybindings._C", "cspedge.backends.executorch.session"),
    "onnxruntime": ("onnxruntime", "cspedge.backends.onnx_writer"),
    "openvino": ("openvino",),
}
_PACKAGES = {"coreml": "coremltools"}  # where the runtime's package has another name than the backend


def measure(job: Job) -> dict[str, Any]:
    """Loads the artifact, runs it once, then times `job.count` inferences: the line's values.

    Raises TargetError where the artifact was changed or fails, UsageError for an unknown backend.
    """
    import numpy as np

    from cspedge.backends import get_backend
    from cspedge.devices.host import peak_rss_mb, rss_mb
    from cspedge.digest import sha256_bytes, sha256_path
    from cspedge.errors import TargetError

    backend, path, tensors = get_backend(job.backend), Path(job.path), Path(job.tensors).read_bytes()
    if sha256_path(path) != job.sha256:
        raise TargetError(f"{job.label} was changed on disk; lower it again")
    pixels = np.frombuffer(tensors, np.uint8).reshape(1, *job.shape)
    image = pixels.astype(np.float32) / np.float32(255)
    for module in _IMPORTS.get(job.backend, ()):
        importlib.import_module(module)
    gc.collect()
    gc.disable()
    base = rss_mb()
    start = perf_counter_ns()
    session = backend.load(path, threads=job.threads, options=job.options)
    loaded = perf_counter_ns()
    session.run(image)
    first = perf_counter_ns()
    samples = []
    for _ in range(job.count):
        before = perf_counter_ns()
        session.run(image)
        samples.append((perf_counter_ns() - before) / 1e6)
    peak = peak_rss_mb()
    return {
        "artifact": job.label,
        "sha256": job.sha256,
        "runtime": {"name": job.backend, "version": version(_PACKAGES.get(job.backend, job.backend))},
        "delegates": [],  # the Python packages do not say
        "threads": job.threads,
        "images": len(pixels),
        "tensors_sha256": sha256_bytes(tensors),
        "outputs_sha256": None,
        "load_ms": (loaded - start) / 1e6,
        "first_ms": (first - loaded) / 1e6,
        "samples_ms": samples,
        "peak_rss_bytes": int((peak or 0) * (1 << 20)),
        "base_rss_bytes": int((base or 0) * (1 << 20)),
    }


def main() -> int:
    """The line on stdout; errors of cspedge as one line on stderr and their exit code."""
    from cspedge.cli.console import quiet_stdout
    from cspedge.devices.fresh import Job
    from cspedge.errors import CspedgeError

    try:
        with quiet_stdout():
            line = measure(Job(**json.loads(sys.argv[1])))
    except CspedgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
