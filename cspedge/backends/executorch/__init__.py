"""ExecuTorch on XNNPACK: lowers to `.pte`, runs it in this process, reads it back from its bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cspedge.backends.base import Availability, Readback, Session
from cspedge.types import Precision

if TYPE_CHECKING:
    from cspedge.quantize.placement import PlacedModel
    from cspedge.types import Audit


class ExecutorchBackend:
    """The ExecuTorch backend; XNNPACK is its only delegate."""

    name = "executorch"
    suffix = ".pte"
    code_version = 2

    def availability(self) -> Availability:
        """Whether executorch and its runtime library are installed; nothing of them is imported."""
        import importlib.util

        from cspedge.backends.sdk import installed

        found = installed("executorch", "executorch")
        if found.ok and importlib.util.find_spec("executorch.extension.pybindings._C") is None:
            reason = "executorch was built without its Python runtime; install cspedge[executorch] from a wheel"
            return Availability(ok=False, reason=reason, versions=found.versions)
        return found

    def lower(self, model: PlacedModel, precision: Precision, path: Path, options: Mapping[str, object]) -> None:
        """Writes a `.pte` with one XNNPACK delegate where the graph allows it; see `lower.lower`."""
        from cspedge.backends.executorch.lower import lower

        no_options(options)
        lower(model, precision, path)

    def load(self, path: Path, *, threads: int, options: Mapping[str, object]) -> Session:
        """The runtime's own session, evidence measured. Raises TargetError where the runtime refuses the file."""
        from cspedge.backends.executorch.session import ExecutorchSession

        no_options(options)
        return ExecutorchSession(path, threads)

    def readback(self, path: Path) -> Readback:
        """Scales, zero points and integer weights of the saved program."""
        from cspedge.backends.executorch.readback import readback

        return readback(path)

    def audit(self, path: Path, model: PlacedModel) -> Audit:
        """Shares of XNNPACK nodes and multiply-accumulates in int8, and the names of the float ones."""
        from cspedge.backends.executorch.audit import audit

        return audit(path, model)


def no_options(options: Mapping[str, object]) -> None:
    """ExecuTorch takes no options: UsageError naming the first one."""
    from cspedge.errors import UsageError

    for key in sorted(options):
        raise UsageError(f"backend 'executorch' knows no option {key!r}; it takes none")


BACKEND = ExecutorchBackend()
