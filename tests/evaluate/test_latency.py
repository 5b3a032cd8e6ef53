"""The latency harness over real ONNX Runtime sessions: structure, order, failures; never how fast."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cspedge.digest import canonical_json
from cspedge.errors import InputError, TargetError, UsageError
from cspedge.evaluate.latency import SETTLE, BenchResult, bench, round_order, summarise
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
    return bench(sessions, IMAGE, rounds=6, per_round=9, warmup=3, seed=11), calls


def test_every_artifact_is_measured_in_every_round(onnx_run: Run) -> None:
    result, calls = _bench(onnx_run, "abc")
    assert result.failures == {}
    assert {label: rows.shape for label, rows in result.samples.items()} == dict.fromkeys("abc", (6, 9))
    for rows in result.samples.values():
        assert rows.dtype == np.float64
        assert (rows > 0.0).all()
    assert Counter(calls) == dict.fromkeys("abc", 3 + 6 * (SETTLE + 9))
    # After the warm-up the calls come in bursts of one artifact, in the recorded order.
    timed = calls[9:]
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

    result = bench({"a": Recorded(onnx_run, "a", [])}, IMAGE, rounds=5, per_round=10, warmup=0, clock=clock)
    assert result.samples["a"].tolist() == [[1.0] * 10] * 5
    assert now == 2 * 50 * 1_000_000


def test_a_session_that_raises_drops_out_alone(onnx_run: Run) -> None:
    result, calls = _bench(onnx_run, "abc", fail={"b": 20})
    assert sorted(result.samples) == ["a", "c"]
    assert result.failures == {"b": "b gave up at call 20 (in round 2 of 6)"}
    assert Counter(calls)["b"] == 20
    assert ["b" in labels for labels in result.order] == [True, True, False, False, False, False]
    assert all(rows.shape == (6, 9) for rows in result.samples.values())


def test_failure_in_the_warm_up_and_of_a_foreign_kind(onnx_run: Run) -> None:
    calls: list[str] = []
    sessions = {"good": Recorded(onnx_run, "good", calls), "early": Recorded(onnx_run, "early", calls, 2)}
    wrong_size = np.zeros((1, 3, 9, 9), dtype=np.float32)
    result = bench(sessions, IMAGE, rounds=5, per_round=10, warmup=2)
    assert result.failures == {"early": "early gave up at call 2 (in the warm-up)"}
    assert all(labels == ("good",) for labels in result.order)
    refused = bench(sessions, wrong_size, rounds=5, per_round=10, warmup=1)
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
    bench({"a": session}, IMAGE, rounds=5, per_round=10, warmup=4)
    assert session.gc_was_on == [True] * 4 + [False] * (5 * (SETTLE + 10))
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


@pytest.mark.parametrize(
    ("rounds", "per_round", "warmup"), [(7, 7, 0), (1, 49, 5), (0, 100, 0), (50, 0, 0), (5, 10, -1)]
)
def test_too_few_inferences_are_refused(rounds: int, per_round: int, warmup: int) -> None:
    with pytest.raises(UsageError, match=r"at least 50|at least 1, 1 and 0"):
        bench({}, IMAGE, rounds=rounds, per_round=per_round, warmup=warmup)


@pytest.mark.parametrize(
    "image", [np.zeros((2, 3, 8, 8), np.float32), np.zeros((1, 3, 8), np.float32), np.zeros((1, 3, 8, 8), np.uint8)]
)
def test_other_images_are_refused(image: NDArray[np.float32]) -> None:
    with pytest.raises(InputError, match=r"needed is float32 \[1, 3, H, W\]"):
        bench({}, image)


def test_no_sessions_is_an_empty_result() -> None:
    assert bench({}, IMAGE) == BenchResult(samples={}, failures={}, order=((),) * 10)


def test_summary_of_known_samples() -> None:
    samples = np.arange(1.0, 101.0).reshape(10, 10)
    latency = summarise(
        samples, 12.5, device="host", isa=("avx2",), threads=2, peak_rss_mb=80.0, fp32=samples * 3.0, seed=1
    )
    assert (latency.p50_ms, latency.mean_ms, latency.load_ms) == (50.5, 50.5, 12.5)
    assert (latency.p90_ms, latency.p99_ms) == pytest.approx((90.1, 99.01))
    assert latency.samples_ms == tuple(float(v) for v in range(1, 101))
    assert latency.speedup_vs_fp32 == 3.0
    assert latency.speedup_ci95 == pytest.approx((3.0, 3.0))
    canonical_json(asdict(latency))


def test_summary_of_a_real_run_without_baseline(onnx_run: Run) -> None:
    result, _ = _bench(onnx_run, "ab")
    latency = summarise(result.samples["a"], 1.0, device="host", isa=(), threads=1)
    assert latency.speedup_vs_fp32 is None
    assert latency.speedup_ci95 is None
    assert latency.peak_rss_mb is None
    assert len(latency.samples_ms) == 54
    assert min(latency.samples_ms) <= latency.p50_ms <= latency.p90_ms <= latency.p99_ms <= max(latency.samples_ms)


@pytest.mark.parametrize("samples", [np.zeros((0, 5)), np.ones(50), np.full((2, 5), np.nan), np.full((2, 5), -1.0)])
def test_summary_refuses_impossible_samples(samples: NDArray[np.float64]) -> None:
    with pytest.raises(InputError, match="latency samples"):
        summarise(samples, 1.0, device="host", isa=(), threads=1)
