"""The Core ML runner (targets/coreml/runner): its portable part built and run here, and its results taken in.

There is no Core ML on this system. Where a run is needed, the program for tests (CspEdgeRunnerCheck) takes the answers
of the MIL reference executor, and its results say so in the name of the device; its times are those of reading a table.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cspedge.devices import emit
from cspedge.digest import sha256_bytes, sha256_file, sha256_path
from cspedge.errors import InputError, UsageError
from cspedge.options import RunOptions, Upto
from cspedge.pipeline import Outcome, execute
from cspedge.types import Evidence

DEVICE = "a test's device: the MIL reference executor, no Core ML"
LABELS = ("coreml/fp16", "coreml/int8")


@pytest.fixture(scope="module")
def programs(toolchains: ModuleType) -> Path:
    path: Path = toolchains.coreml_runner()
    return path


def test_its_xctests_pass(programs: Path, toolchains: ModuleType) -> None:
    command = ["swift", "test", "--skip-build", "--scratch-path", str(programs.parent)]
    done = subprocess.run(command, cwd=toolchains.RUNNER, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Executed 6 tests, with 0 failures" in done.stdout + done.stderr


def test_the_command_needs_core_ml(programs: Path, tmp_path: Path) -> None:
    if sys.platform == "darwin":
        pytest.skip("this is a Mac, which has Core ML")
    done = subprocess.run([programs / "cspedge-coreml-runner", tmp_path, tmp_path / "out"], capture_output=True)
    assert (done.returncode, done.stdout) == (4, b"")
    assert b"Core ML is not on this system; use a Mac" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert subprocess.run([programs / "cspedge-coreml-runner"], capture_output=True).returncode == 2


def test_cspedge_and_the_runner_know_one_version(toolchains: ModuleType) -> None:
    source = (toolchains.RUNNER / "Sources/CspEdgeRunner/RunDescription.swift").read_text()
    assert f'public let runnerVersion = "{emit.RUNNER_VERSION}"' in source


@dataclass(frozen=True, kw_only=True)
class Emitted:
    """A folder of --emit with the built-in model, and the run that wrote it."""

    folder: Path
    options: dict[str, Any]
    outcome: Outcome

    @property
    def job(self) -> Path:
        return self.folder / emit.JOB

    def run(self, upto: Upto = Upto.BENCH, **others: Any) -> Outcome:
        return execute(RunOptions(**{**self.options, **others}), upto)


@pytest.fixture(scope="module")
def emitted(tmp_path_factory: pytest.TempPathFactory, few_scans: Path) -> Emitted:
    root = tmp_path_factory.mktemp("apple")
    options = {
        "workspace": root / "store",
        "out": root / "out",
        "val": str(few_scans),
        "targets": ("coreml",),
        "recipe": "fast",
        "calib_images": 32,
    }
    folder = root / "emitted"
    outcome = execute(RunOptions(**options, device="mac://?units=cpuOnly", emit=folder), Upto.BENCH)
    return Emitted(folder=folder, options=options, outcome=outcome)


def test_the_folder_holds_what_its_description_says(emitted: Emitted) -> None:
    assert (emitted.outcome.exit_code, emitted.outcome.report) == (0, None)
    run = json.loads((emitted.job / "run.json").read_text())
    assert (run["device"], run["units"], run["rounds"], run["per_round"]) == ("mac://?units=cpuOnly", "cpuOnly", 10, 40)
    pixels = (emitted.job / run["tensors"]["file"]).read_bytes()
    assert run["tensors"]["images"] == 20
    assert len(pixels) == 20 * np.prod(run["tensors"]["shape"])
    assert run["tensors"]["sha256"] == sha256_bytes(pixels)
    assert tuple(entry["artifact"] for entry in run["artifacts"]) == LABELS
    made = {row.label: row.artifact for row in emitted.outcome.results}
    for entry in run["artifacts"]:
        package, artifact = emitted.job / entry["path"], made[entry["artifact"]]
        assert artifact is not None
        assert sha256_path(package) == artifact.sha256 == entry["sha256"]
        assert {f["path"]: f["sha256"] for f in entry["files"]} == {
            p.relative_to(package).as_posix(): sha256_file(p) for p in package.rglob("*") if p.is_file()
        }
    # the sources are whole: SwiftPM finds every target of both packages
    command = ["swift", "package", "--package-path", str(emitted.folder / emit.RUNNER), "describe"]
    if shutil.which("swift") is not None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    assert subprocess.run(["sh", "-n", emitted.folder / "run.sh"]).returncode == 0
    readme = (emitted.folder / "README.md").read_text()
    assert "coreml/fp16, coreml/int8), 20 images" in readme
    assert "10 rounds of 10 timed inferences" in readme


def test_a_folder_that_is_not_empty_is_left_as_it_is(emitted: Emitted, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(UsageError, match="is there already; give a folder that is new or empty"):
        emitted.run(device="mac://", emit=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_validating_a_bounded_number_of_images(emitted: Emitted, tmp_path: Path) -> None:
    udid = "00008110-0012345A3E61801E"
    emitted.run(Upto.EVALUATE, device=f"ios://{udid}", emit=tmp_path / "few", emit_images=5)
    run = json.loads((tmp_path / "few" / emit.JOB / "run.json").read_text())
    assert (run["units"], run["rounds"], run["tensors"]["images"]) == ("all", 0, 5)
    every = np.fromfile(emitted.job / "inputs.u8", np.uint8).reshape(20, -1)
    few = np.fromfile(tmp_path / "few" / emit.JOB / "inputs.u8", np.uint8).reshape(5, -1)
    np.testing.assert_array_equal(few, every[[0, 4, 8, 12, 16]])  # two of each class: so one of five classes
    script = (tmp_path / "few" / "run.sh").read_text()
    assert f"-destination platform=iOS,id={udid}" in script
    assert '"DEVELOPMENT_TEAM=$CSPEDGE_TEAM"' in script
    assert f"devicectl device copy from --device {udid}" in script
    # what run.sh asks for is named where it is missing
    done = subprocess.run(["sh", tmp_path / "few" / "run.sh"], env={"PATH": "/usr/bin:/bin"}, capture_output=True)
    assert done.returncode != 0
    assert b"CSPEDGE_TEAM: your team of ten letters and digits" in done.stderr


@pytest.fixture(scope="module")
def results(emitted: Emitted, programs: Path) -> Path:
    """The folder that the runner leaves, here with the reference executor's answers in Core ML's place."""
    from cspedge.backends.coreml.reference import ReferenceSession

    run = json.loads((emitted.job / "run.json").read_text())
    pixels = np.fromfile(emitted.job / "inputs.u8", np.uint8).reshape(-1, *run["tensors"]["shape"])
    images = pixels.astype(np.float32) / np.float32(255)
    outputs = {}
    for entry in run["artifacts"]:
        (logits,) = ReferenceSession(emitted.job / entry["path"], threads=1).run(images)
        rows = zip(images, logits, strict=True)
        # known by the input's bytes: the runner must make the very tensor that the pipeline makes
        outputs[Path(entry["path"]).name] = {sha256_bytes(i.astype("<f4").tobytes()): [o.tolist()] for i, o in rows}
    facts = {"platform": "macOS", "model": DEVICE, "machine": "none", "system": "none"}
    answers = emitted.folder.with_name("answers.json")
    answers.write_text(json.dumps({"facts": facts, "runtime": "MIL reference executor", "outputs": outputs}))
    folder = emitted.folder.with_name("results")
    command = [programs / "CspEdgeRunnerCheck", emitted.job, folder, answers]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


def test_results_are_taken_in(emitted: Emitted, results: Path) -> None:
    """From --emit through the Swift runner's own JSON to the report: answers, times, where and how."""
    here = {row.label: row.evaluation for row in emitted.run(Upto.EVALUATE).results}
    outcome = emitted.run(add=(str(results / "results.json"),))
    assert outcome.report is not None
    assert tuple(f"{row['target']}/{row['precision']}" for row in outcome.report["artifacts"]) == LABELS
    for row in outcome.report["artifacts"]:
        label = f"{row['target']}/{row['precision']}"
        before = here[label]
        assert before is not None
        assert before.accuracy is not None
        assert before.evidence is Evidence.REFERENCE_EXECUTOR
        # the same answers, so the same accuracy, now from the file that came back
        assert (row["evidence"], row["evidence_detail"]) == ("measured", None)
        assert row["accuracy"]["top1"] == before.accuracy.top1
        assert row["accuracy"]["sqnr_db"] == pytest.approx(before.accuracy.sqnr_db, rel=1e-6)
        assert row["accuracy"]["n"] == 20
        place = row["ran_on"]
        assert (place["uri"], place["cpu"]) == ("mac://?units=cpuOnly", DEVICE)
        assert (place["runtime"], place["delegates"]) == ("MIL reference executor none", ["CoreML"])
        state = place["apple"]
        assert (state["units"], state["thermal_before"], state["low_power_mode"]) == ("cpuOnly", "nominal", False)
        assert state["operations"] == {}
        assert row["latency"]["device"] == f"{DEVICE} (mac://?units=cpuOnly)"
        assert len(row["latency"]["samples_ms"]) == 100
        assert row["latency"]["peak_rss_mb"] is None
        same = f"{label}: Core ML on {DEVICE} and the MIL reference executor here give the same class on 100.00% of 20 "
        assert any(note.startswith(same) for note in outcome.report["notes"])
    assert outcome.report["artifacts"][1]["latency"]["speedup_vs_fp32"] is not None
    shown = (emitted.options["out"] / "report.html").read_text()
    assert "threads as the runtime chooses" in shown


Change = Callable[[Path], None]


def edit(change: Callable[[dict[str, Any]], object], name: str = "results.json") -> Change:
    """Changes the JSON; run.json's digest in results.json follows, so that only the change itself is wrong."""

    def apply(folder: Path) -> None:
        path = folder / name
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))
        if name == "run.json":
            edit(lambda found: found.update(run_sha256=sha256_file(path)))(folder)

    return apply


def outputs(change: Callable[[np.ndarray[Any, Any]], object]) -> Change:
    """Changes the outputs of coreml/int8, and their digest too."""

    def apply(folder: Path) -> None:
        path = folder / "coreml-int8.f32"
        values = np.fromfile(path, "<f4")
        found = change(values)
        (values if found is None else found).tofile(path)  # type: ignore[union-attr]
        edit(lambda v: v["artifacts"][1]["validated"].update(outputs_sha256=sha256_file(path)))(folder)

    return apply


def nan(values: np.ndarray[Any, Any]) -> None:
    values[7] = np.nan


BAD: dict[str, tuple[Change, str]] = {
    "another schema": (edit(lambda v: v.update(schema=2)), "schema is 2; expected 1"),
    "another runner": (edit(lambda v: v.update(runner="0")), "runner is '0'; expected '1'"),
    "an unknown field": (edit(lambda v: v.update(more=1)), "more is an unknown key"),
    "no JSON": (lambda f: (f / "results.json").write_text("{") and None, "cannot be read as JSON"),
    "NaN in a figure": (
        lambda f: (
            (f / "results.json").write_text(
                (f / "results.json").read_text().replace('"compile_ms":', '"compile_ms":NaN,"x":')
            )
            and None
        ),
        "NaN is not JSON",
    ),
    "another system": (edit(lambda v: v["device"]["facts"].update(platform="Linux")), "comes from 'Linux'"),
    "no run.json": (lambda f: (f / "run.json").unlink(), "run.json' is missing"),
    "a changed run.json": (lambda f: (f / "run.json").write_text("{}") and None, "run.json' was changed"),
    "a run.json of nothing": (edit(lambda v: v.clear(), "run.json"), "schema is missing"),
    "another device": (edit(lambda v: v["device"].update(uri="mac://")), "asks for 'mac://?units=cpuOnly'"),
    "another artifact": (
        edit(lambda v: v["artifacts"][1].update(sha256="0" * 64), "run.json"),
        "is of another coreml/int8 (SHA-256 000000000000, here ",
    ),
    "an artifact of no one's": (
        edit(lambda v: v["artifacts"][1].update(artifact="coreml/fp32"), "run.json"),
        "is of coreml/fp32, which this run does not make",
    ),
    "other images": (edit(lambda v: v["tensors"].update(sha256="1" * 64), "run.json"), "is of other images than"),
    "fewer images": (edit(lambda v: v["tensors"].update(images=19), "run.json"), "is of other images than"),
    "an artifact that is missing": (edit(lambda v: v["artifacts"].pop()), "is of coreml/fp16, and coreml/fp16, coreml"),
    "a line of another artifact": (
        edit(lambda v: v["artifacts"][1]["validated"].update(sha256="2" * 64)),
        "its artifact's SHA-256 is '2222",
    ),
    "a line of other tensors": (
        edit(lambda v: v["artifacts"][0]["timed"][3].update(tensors_sha256="3" * 64)),
        "its tensors' SHA-256 is '3333",
    ),
    "a round too few": (edit(lambda v: v["artifacts"][0]["timed"].pop()), "has 9 rounds of coreml/fp16, and 10 were"),
    "a sample too many": (
        edit(lambda v: v["artifacts"][0]["timed"][0]["samples_ms"].append(1.0)),
        "its number of samples is 11, and 10 was asked for",
    ),
    "a negative time": (
        edit(lambda v: v["artifacts"][0]["timed"][0].update(load_ms=-1)),
        "load_ms is -1; expected a number from 0",
    ),
    "changed outputs": (
        lambda f: (f / "coreml-int8.f32").write_bytes(bytes(800)) and None,
        "coreml-int8.f32' was changed; copy the folder",
    ),
    "no outputs": (lambda f: (f / "coreml-int8.f32").unlink(), "coreml-int8.f32' is missing"),
    "outputs of fewer images": (outputs(lambda v: v[:-10]), "has 190 values for 20 images, not 10 each"),
    "NaN in the outputs": (outputs(nan), "has values that are NaN or infinite; coreml/int8 cannot be used"),
}


@pytest.mark.parametrize("what", BAD)
def test_results_that_are_refused(emitted: Emitted, results: Path, tmp_path: Path, what: str) -> None:
    change, words = BAD[what]
    folder = shutil.copytree(results, tmp_path / "results")
    change(folder)
    with pytest.raises(InputError) as caught:
        emitted.run(add=(str(folder / "results.json"),))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_artifact_that_failed_there_has_its_reason(emitted: Emitted, results: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(results, tmp_path / "results")

    def fail(found: dict[str, Any]) -> None:
        found["failures"].append({"artifact": found["artifacts"].pop()["artifact"], "reason": "out of memory"})

    edit(fail)(folder)
    outcome = emitted.run(add=(str(folder / "results.json"),))
    assert outcome.exit_code == 1
    assert outcome.report is not None
    fp16, int8 = outcome.report["artifacts"]
    assert (fp16["status"], fp16["evidence"], int8["status"], int8["evidence"]) == (
        "ok",
        "measured",
        "failed",
        "not-run",
    )
    assert int8["reason"] == "coreml/int8 failed on device 'mac://?units=cpuOnly': out of memory"
