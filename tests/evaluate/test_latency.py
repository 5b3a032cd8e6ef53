"""The latency harness over real ONNX Runtime sessions: structure, order, failures; never how fast."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cspedge.errors import InputError, TargetError, UsageError
from cspedge.evaluate.latency import SETTLE, BenchResult, bench, round_order
from cspedge.evaluate.steady import CAP, WINDOW
from cspedge.types import Evidence

IMAGE = np.full((1, 3, 8, 8), 0.5, dtype=np.float32)
Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Recorded:
    """A real ONNX Runtime session of a real file; notes each call, and can be told to fail at one."""

    evidence = Evidence.MEASURED

    def __init__(self, run: Run, label: str, calls: list[str], fail_at: int | None = None) -> None:
        self._run, self._label, self._calls, self._fail_at = run, label, calls, fail_at
        self.count = 0
        self.gc_was_on: list[bool] = []

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        self.count += 1
        self._calls.append(self._label)
        self.gc_was_on.append(gc.isenabled())
        if self.count == self._fail_at:
            raise TargetError(f"{self._label} gave up at call {self.count}")
        return self._run(images)


@pytest.fixture(scope="module")
def onnx_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`run` of a one-convolution classifier, saved with onnx.helper and loaded from its file."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = numpy_helper.from_array(rng.normal(size=(4, 3, 3, 3)).astype(np.float32), "w")
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            helper.make_node("GlobalAveragePool", ["y"], ["p"]),
            helper.make_node("Flatten", ["p"], ["logits"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4])],
        [weights],
    )
    path: Path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = session.run(None, {"x": images})[0]
        return logits

    assert run(IMAGE).shape == (1, 4)
    return run


def _bench(run: Run, labels: str, *, fail: dict[str, int] | None = None) -> tuple[BenchResult, list[str]]:
    calls: list[str] = []
    sessions = {label: Recorded(run, label, calls, (fail or {}).get(label)) for label in labels}
    return bench(sessions, IMAGE, rounds=6, per_round=9, seed=11), calls


def test_every_artifact_is_measured_in_every_round(onnx_run: Run) -> None:
    result, calls = _bench(onnx_run, "abc")
    assert result.failures == {}
    assert {label: rows.shape for label, rows in result.samples.items()} == dict.fromkeys("abc", (6, 9))
    for rows in result.samples.values():
        assert rows.dtype == np.float64
        assert (rows > 0.0).all()
    before = {label: len(result.warmup[label]) for label in "abc"}
    assert all(2 * WINDOW <= count <= CAP for count in before.values())
    assert Counter(calls) == {label: count + 6 * (SETTLE + 9) for label, count in before.items()}
    # After the warm-up the calls come in bursts of one artifact, in the recorded order.
    timed = calls[sum(before.values()) :]
    bursts = [timed[i : i + SETTLE + 9] for i in range(0, len(timed), SETTLE + 9)]
    assert all(len(set(burst)) == 1 for burst in bursts)
    assert [burst[0] for burst in bursts] == [label for labels in result.order for label in labels]


def test_order_is_balanced_and_seeded() -> None:
    order = round_order(("a", "b", "c", "d"), rounds=8, seed=3)
    for place in range(4):
        assert Counter(labels[place] for labels in order) == dict.fromkeys("abcd", 2)
    assert order == round_order(("a", "b", "c", "d"), rounds=8, seed=3)
    assert len({round_order(("a", "b", "c", "d"), rounds=8, seed=seed) for seed in range(10)}) > 5


@given(st.integers(0, 6), st.integers(1, 20), st.integers(0, 2**32))
def test_each_round_holds_each_label_once(labels: int, rounds: int, seed: int) -> None:
    names = tuple(f"target{i}/int8" for i in range(labels))
    order = round_order(names, rounds=rounds, seed=seed)
    assert len(order) == rounds
    assert all(sorted(labels) == sorted(names) for labels in order)


def test_the_clock_is_read_around_each_inference(onnx_run: Run) -> None:
    """A clock that goes on by 1 ms a reading gives exactly 1 ms a sample: two readings each, in nanoseconds."""
    now = 0

    def clock() -> int:
        nonlocal now
        now += 1_000_000
        return now

    result = bench({"a": Recorded(onnx_run, "a", [])}, IMAGE, rounds=5, per_round=10, clock=clock)
    assert result.samples["a"].tolist() == [[1.0] * 10] * 5
    assert result.warmup["a"] == (1.0,) * 2 * WINDOW
    assert result.unsteady == frozenset()
    assert now == 2 * (50 + 2 * WINDOW) * 1_000_000


def test_a_session_that_never_becomes_steady_is_timed_and_named(onnx_run: Run) -> None:
    """A clock whose every reading takes a twentieth more than the one before: each inference looks slower."""
    now, step = 0, 1_000.0

    def clock() -> int:
        nonlocal now, step
        step *= 1.05
        now += int(step)
        return now

    result = bench({"a": Recorded(onnx_run, "a", [])}, IMAGE, rounds=5, per_round=10, clock=clock)
    assert len(result.warmup["a"]) == CAP
    assert result.unsteady == {"a"}
    assert result.samples["a"].shape == (5, 10)


def test_a_session_that_raises_drops_out_alone(onnx_run: Run) -> None:
    last = CAP + 6 * (SETTLE + 9) // 2  # after any warm-up, before the end
    result, calls = _bench(onnx_run, "abc", fail={"b": last})
    assert sorted(result.samples) == ["a", "c"]
    assert result.failures["b"].startswith(f"b gave up at call {last} (in round ")
    assert Counter(calls)["b"] == last
    ran = ["b" in labels for labels in result.order]
    assert ran == sorted(ran, reverse=True)
    assert True in ran
    assert False in ran
    assert all(rows.shape == (6, 9) for rows in result.samples.values())


def test_failure_in_the_warm_up_and_of_a_foreign_kind(onnx_run: Run) -> None:
    calls: list[str] = []
    sessions = {"good": Recorded(onnx_run, "good", calls), "early": Recorded(onnx_run, "early", calls, 2)}
    wrong_size = np.zeros((1, 3, 9, 9), dtype=np.float32)
    result = bench(sessions, IMAGE, rounds=5, per_round=10)
    assert result.failures == {"early": "early gave up at call 2 (in the warm-up)"}
    assert all(labels == ("good",) for labels in result.order)
    refused = bench(sessions, wrong_size, rounds=5, per_round=10)
    assert refused.samples == {}
    assert refused.failures["good"].startswith("InvalidArgument: ")  # ONNX Runtime's own exception, named


def test_interrupts_are_not_swallowed(onnx_run: Run) -> None:
    def interrupted(images: NDArray[np.float32]) -> NDArray[np.float32]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench({"a": Recorded(interrupted, "a", [])}, IMAGE, rounds=5, per_round=10)
    assert gc.isenabled()


def test_gc_is_off_while_timing_and_back_after(onnx_run: Run) -> None:
    session = Recorded(onnx_run, "a", [])
    assert gc.isenabled()
    result = bench({"a": session}, IMAGE, rounds=5, per_round=10)
    assert session.gc_was_on == [False] * (len(result.warmup["a"]) + 5 * (SETTLE + 10))
    assert gc.isenabled()
    gc.disable()
    try:
        bench({"a": session}, IMAGE, rounds=5, per_round=10)
        assert not gc.isenabled()  # as the caller had it
    finally:
        gc.enable()


def test_progress_counts_rounds(onnx_run: Run) -> None:
    seen: list[tuple[int, int]] = []
    bench({"a": Recorded(onnx_run, "a", [])}, IMAGE, rounds=5, per_round=10, progress=lambda *done: seen.append(done))
    assert seen == [(i, 5) for i in range(1, 6)]


@pytest.mark.parametrize(("rounds", "per_round"), [(7, 7), (1, 49), (0, 100), (50, 0), (5, -1)])
def test_too_few_inferences_are_refused(rounds: int, per_round: int) -> None:
    with pytest.raises(UsageError, match=r"at least 50|at least 1 for both"):
        bench({}, IMAGE, rounds=rounds, per_round=per_round)


@pytest.mark.parametrize(
    "image", [np.zeros((2, 3, 8, 8), np.float32), np.zeros((1, 3, 8), np.float32), np.zeros((1, 3, 8, 8), np.uint8)]
)
def test_other_images_are_refused(image: NDArray[np.float32]) -> None:
    with pytest.raises(InputError, match=r"needed is float32 \[1, 3, H, W\]"):
        bench({}, image)


def test_no_sessions_is_an_empty_result() -> None:
    assert bench({}, IMAGE) == BenchResult(samples={}, failures={}, order=((),) * 10, warmup={}, unsteady=frozenset())
