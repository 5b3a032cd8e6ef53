"""A device's results taken into a run: its answers beside the reference's, its times, and what both say of the row."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cspedge.devices.emit import chosen, file_name
from cspedge.devices.line import Asked, Line, parse
from cspedge.digest import sha256_bytes, sha256_file
from cspedge.errors import InputError, TargetError
from cspedge.measured import AppleState, Latency, RanOn
from cspedge.types import ArtifactResult, Evidence, Head, Precision, Status

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cspedge.devices.results import Returned
    from cspedge.inputs import Validation
    from cspedge.models.reference import ReferenceInfo


def take_in(
    returned: Returned, rows: Sequence[ArtifactResult], validation: Validation, info: ReferenceInfo, seed: int
) -> tuple[list[ArtifactResult], list[str]]:
    """The rows with a device's answers and times in place of what was found here, and sentences for the report.

    Raises InputError where the results are of other artifacts or images, or a file is missing, changed or damaged.
    """
    from cspedge.evaluate.steady import CAP

    by_label = {row.label: row for row in rows}
    asked = {entry["artifact"]: entry for entry in returned.asked["artifacts"]}
    for label, entry in asked.items():
        row = by_label.get(label)
        if row is None or row.artifact is None:
            raise InputError(
                f"{str(returned.path)!r} is of {label}, which this run does not make; give its target and precision"
            )
        if row.artifact.sha256 != entry["sha256"]:
            raise InputError(
                f"{str(returned.path)!r} is of another {label} (SHA-256 {entry['sha256'][:12]}, here "
                f"{row.artifact.sha256[:12]}); emit this run's and run it again"
            )
    if returned.asked["rounds"] and returned.asked["per_round"] <= CAP:
        raise InputError(
            f"{str(returned.path)!r} has {returned.asked['per_round']} inferences a round, of which {CAP} may be "
            "warm-up; emit it again"
        )
    tensors = returned.asked["tensors"]
    indices = chosen(len(validation.images), tensors["images"])
    pixels = validation.images.images[indices]
    if sha256_bytes(pixels.tobytes()) != tensors["sha256"]:
        raise InputError(
            f"{str(returned.path)!r} is of other images than this run's validation images; emit this run's and run it "
            "again"
        )
    taken = _Taken(returned, validation, info, indices, sha256_bytes(pixels[:1].tobytes()), seed)
    notes: list[str] = []
    lines = {e["artifact"]: taken.lines(e, by_label[e["artifact"]]) for e in _known(returned, asked)}
    found = [taken.row(row, lines, notes) if row.label in asked else row for row in rows]
    return found, notes


def _known(returned: Returned, asked: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The artifacts of the results; each one that was asked for is there once, or has its reason."""
    entries = list(returned.found["artifacts"])
    failed = {entry["artifact"] for entry in returned.found["failures"]}
    labels = [entry["artifact"] for entry in entries]
    if len(set(labels)) < len(labels) or set(labels) | failed != set(asked) or set(labels) & failed:
        raise InputError(
            f"{str(returned.path)!r} is of {', '.join(sorted([*labels, *failed])) or 'nothing'}, and "
            f"{', '.join(asked)} was asked for; run it again"
        )
    return entries


@dataclass(frozen=True)
class _Lines:
    entry: Mapping[str, Any]
    validated: Line
    timed: tuple[Line, ...]


@dataclass(frozen=True)
class _Taken:
    """What results are held against: this run's images (those at `indices`), its first one's digest, its model."""

    returned: Returned
    validation: Validation
    info: ReferenceInfo
    indices: Sequence[int]
    first_sha256: str
    seed: int

    def lines(self, entry: Mapping[str, Any], row: ArtifactResult) -> _Lines:
        """Raises InputError for a line of something else."""
        asked, tensors = self.returned.asked, self.returned.asked["tensors"]
        assert row.artifact is not None
        whole = Asked(
            label=row.label,
            sha256=row.artifact.sha256,
            threads=0,  # Core ML takes none
            images=tensors["images"],
            tensors_sha256=tensors["sha256"],
            rounds=0,
            outputs=True,
        )
        one = replace(whole, images=1, tensors_sha256=self.first_sha256, rounds=asked["per_round"], outputs=False)
        if len(entry["timed"]) != asked["rounds"]:
            raise InputError(
                f"{str(self.returned.path)!r} has {len(entry['timed'])} rounds of {row.label}, and {asked['rounds']} "
                "were asked for; run it again"
            )
        where = str(self.returned.path)
        try:
            timed = tuple(parse(json.dumps(line), one, where) for line in entry["timed"])
            return _Lines(entry, parse(json.dumps(entry["validated"]), whole, where), timed)
        except TargetError as error:
            raise InputError(str(error)) from error

    def row(self, row: ArtifactResult, lines: Mapping[str, _Lines], notes: list[str]) -> ArtifactResult:
        """The row with what the device found; one that failed there has its reason."""
        from cspedge.evaluate.answers import judged

        if row.label not in lines:
            reason = next(e["reason"] for e in self.returned.found["failures"] if e["artifact"] == row.label)
            reason = f"{row.label} failed on device {self.returned.asked['device']!r}: {reason}"
            return replace(row, status=Status.FAILED, reason=reason, evaluation=None, latency=None)
        if self.validation.vectors is None:
            raise InputError(f"{str(self.returned.path)!r} has no feature maps; give the head that it was emitted with")
        mine = lines[row.label]
        found = self._outputs(row, mine.validated)
        labels = self.validation.images.labels
        whole = len(self.indices) == len(self.validation.images)
        evaluation = judged(
            self.info.outputs[0],
            Head(self.info.head),
            self.validation.vectors[self.indices],
            found,
            None if labels is None else labels[self.indices],
            Evidence.MEASURED,
        )
        notes += self._notes(row, found)
        # agreement between artifacts is of all images, or not told
        vectors = found if whole else None
        evaluation = replace(evaluation, vectors=vectors, ran_on=self._ran_on(mine))
        latency = self._latency(row, lines) if mine.timed else row.latency
        return replace(row, evaluation=evaluation, latency=latency)

    def _outputs(self, row: ArtifactResult, line: Line) -> NDArray[np.float32]:
        """The first output's vectors, float32 [n, d]."""
        import numpy as np

        place = self.returned.path.with_name(f"{file_name(row.label)}.f32")
        if not place.is_file() or sha256_file(place) != line.outputs_sha256:
            state = "was changed" if place.is_file() else "is missing"
            raise InputError(f"{str(place)!r} {state}; copy the folder of the results from the device again")
        values = np.fromfile(place, "<f4").astype(np.float32)
        size = math.prod(self.info.outputs[0].shape)
        if values.size != len(self.indices) * size:
            raise InputError(
                f"{str(place)!r} has {values.size} values for {len(self.indices)} images, not {size} each; run it again"
            )
        if not np.isfinite(values).all():
            raise InputError(f"{str(place)!r} has values that are NaN or infinite; {row.label} cannot be used there")
        return values.reshape(len(self.indices), size)

    def _notes(self, row: ArtifactResult, found: NDArray[np.float32]) -> list[str]:
        """How the device's answers compare with those that were found here."""
        before = row.evaluation
        if before is None or before.vectors is None or self.info.head != Head.LOGITS:
            return []
        here = "the MIL reference executor" if before.evidence is Evidence.REFERENCE_EXECUTOR else "Core ML"
        same = (before.vectors[self.indices].argmax(1) == found.argmax(1)).mean()
        return [
            f"{row.label}: Core ML on {self._model()} and {here} here give the same class on "
            f"{same:.2%} of {len(found)} images."
        ]

    def _model(self) -> str:
        return str(self.returned.found["device"]["facts"]["model"])

    def _ran_on(self, lines: _Lines) -> RanOn:
        device = self.returned.found["device"]
        return RanOn(
            uri=device["uri"],
            cpu=self._model(),
            machine=device["facts"]["machine"],
            isa=(),
            os=device["facts"]["system"],
            runtime=f"{lines.validated.runtime} {lines.validated.version}",
            delegates=lines.validated.delegates,
            apple=AppleState(
                units=device["units"],
                low_power_mode=device["low_power_mode"],
                thermal_before=device["thermal_before"],
                thermal_after=device["thermal_after"],
                compile_ms=float(lines.entry["compile_ms"]),
                operations=dict(lines.entry["operations"]),
            ),
        )

    def _latency(self, row: ArtifactResult, lines: Mapping[str, _Lines]) -> Latency:
        """As a native runner's on other devices (`cspedge.devices.lab`): every round's model was loaded anew."""
        from cspedge.devices.rounds import timed
        from cspedge.evaluate.steady import CAP
        from cspedge.evaluate.timing import BenchProtocol, summarise

        per_round = self.returned.asked["per_round"] - CAP
        times = {label: timed(found.timed, per_round) for label, found in lines.items()}
        floats = [label for label in lines if label.startswith(f"{row.target}/") and not label.endswith("/int8")]
        base = floats[0] if floats and row.precision is Precision.INT8 else None
        return summarise(
            times[row.label],
            device=f"{self._model()} ({self.returned.found['device']['uri']})",
            isa=(),
            threads=0,
            protocol=BenchProtocol.FRESH_LOAD,
            fp32=None if base is None else times[base],
            seed=self.seed,
        )
