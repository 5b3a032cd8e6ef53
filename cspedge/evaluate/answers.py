"""Running the reference and the artifacts over images, and putting their answers side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from cspedge.errors import InputError, TargetError
from cspedge.types import Artifact, Closeness, Evaluation, Evidence, Head, Output

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cspedge.backends.base import Session
    from cspedge.models.reference import Reference

Progress = Callable[[int, int], None]
Answers = Callable[["NDArray[np.float32]"], tuple["NDArray[np.float32]", ...]]


def reference_device_kind() -> str:
    """`cuda` or `cpu`: where the reference runs here."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def reference_answers(reference: Reference, threads: int) -> Iterator[Answers]:
    """A function from float32 [n, 3, H, W] in [0, 1] to the reference's outputs, in strict fp32.

    CUDA where there is one, with TF32 off, else CPU with that many threads.
    """
    import torch

    from cspedge.quantize.graph import as_tuple
    from cspedge.threads import torch_threads

    device = torch.device(reference_device_kind())
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    module = reference.module.to(device)

    def answer(images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        return tuple(o.float().cpu().numpy() for o in as_tuple(module(torch.from_numpy(images).to(device))))

    try:
        with torch.no_grad(), torch_threads(threads):
            yield answer
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn
        reference.module.to("cpu")


def session_answers(session: Session, artifact: Artifact) -> Answers:
    """The artifact's outputs; what its runtime raises becomes a TargetError."""
    from cspedge.config import load_target
    from cspedge.lowering import sdk_errors

    target = load_target(artifact.target)

    def answer(images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        with sdk_errors(target, artifact.precision, "run"):
            return session.run(images)

    return answer


def batches(images: NDArray[np.uint8], size: int, progress: Progress | None) -> Iterator[NDArray[np.float32]]:
    """uint8 [n, 3, H, W] as float32 batches in [0, 1]; progress is called after each."""
    import numpy as np

    for start in range(0, len(images), size):
        yield images[start : start + size].astype(np.float32) / np.float32(255)
        if progress is not None:
            progress(min(start + size, len(images)), len(images))


def vectors(
    answer: Answers,
    output: Output,
    images: NDArray[np.uint8],
    *,
    whose: str,
    error: type[InputError] | type[TargetError],
    batch: int = 32,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """The one output of a model on all images, float32 [n, d]; raises `error` for another shape, NaN or infinities."""
    import numpy as np

    from cspedge.evaluate.outputs import check

    parts = [answer(part) for part in batches(images, batch, progress)]
    found: NDArray[np.float32] = np.concatenate([part[0] for part in parts])
    check([found] if all(len(part) == 1 for part in parts) else parts[0], [output], whose, error)
    return found


def streamed(
    expected: Answers,
    found: Answers,
    outputs: Sequence[Output],
    images: NDArray[np.uint8],
    *,
    whose: str,
    batch: int = 16,
    progress: Progress | None = None,
) -> tuple[Closeness, ...]:
    """Both models on all images, compared as they come: for feature maps, which would not fit into memory."""
    from cspedge.evaluate.outputs import Comparison

    comparison = Comparison(outputs)
    for part in batches(images, batch, progress):
        comparison.add(expected(part), found(part), whose)
    return comparison.result()


def judged(
    output: Output,
    head: Head,
    expected: NDArray[np.float32],
    found: NDArray[np.float32],
    labels: NDArray[np.int64] | None,
    evidence: Evidence,
) -> Evaluation:
    """One artifact's vectors beside the reference's: accuracy and paired tests for logits, neighbours for embeddings.

    Raises InputError where logits have no labels to be compared with.
    """
    from cspedge.evaluate.metrics import accuracy
    from cspedge.evaluate.outputs import compare, neighbour_agreement
    from cspedge.evaluate.paired import paired

    row = compare(output, expected, found)
    if head is Head.LOGITS:
        if labels is None:
            raise InputError("the validation images have no labels; accuracy needs one subfolder per class")
        return Evaluation(
            vectors=found,
            accuracy=accuracy(found, expected, labels),
            outputs=(row,),
            evidence=evidence,
            paired=paired(found, expected, labels),
        )
    same = neighbour_agreement(expected, found) if len(found) > 1 else None
    row = replace(row, neighbour_agreement=same)
    return Evaluation(vectors=found, accuracy=None, outputs=(row,), evidence=evidence)
