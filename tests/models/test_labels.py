"""Class names from a file, and a classifier that has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from cspedge.data.images import labels_for, scan
from cspedge.errors import InputError
from cspedge.models.reference import load_reference
from cspedge.models.source import resolve


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> str:
    """lcnet_050 of three classes, as a file without label names."""
    file = tmp_path_factory.mktemp("three") / "weights.pth"
    torch.save(timm.create_model("lcnet_050", num_classes=3).state_dict(), file)
    return str(file)


def labels_file(folder: Path, text: str | bytes) -> str:
    file = folder / "labels.txt"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(file)


@pytest.mark.parametrize("text", ["cat\ndog\nMöwe\n", "cat\r\ndog\r\nMöwe", "\ufeffcat\ndog \nMöwe\n"])
def test_labels_come_from_the_file(text: str, three: str, tmp_path: Path) -> None:
    info = load_reference("lcnet_050", weights=three, labels=labels_file(tmp_path, text)).info
    assert info.labels == ("cat", "dog", "Möwe")


def test_labels_are_part_of_the_key(three: str, tmp_path: Path) -> None:
    digests = [resolve("lcnet_050", three).digest]
    digests += [
        resolve("lcnet_050", three, labels_file(tmp_path, text)).digest for text in ("a\nb\nc", "b\na\nc", "a\nb\nc\n")
    ]
    assert len(set(digests)) == 3
    assert digests[1] == digests[3]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cat\ndog\n", "has 2 labels but the model has 3 classes"),
        ("cat\ndog\ncow\nhen\n", "has 4 labels but the model has 3 classes"),
        ("cat\ndog\ncat\n", r"has 'cat' in lines 1 and 3; each class needs its own label"),
        ("cat\n\ndog\n", r"line 2 of labels file '.*labels\.txt' is empty"),
        ("", "is empty; write one label a line"),
        (b"cat\n\xff\xfe\n", "is not UTF-8 text"),
    ],
)
def test_labels_that_do_not_fit(text: str | bytes, words: str, three: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        load_reference("lcnet_050", weights=three, labels=labels_file(tmp_path, text))


def test_a_labels_file_that_is_missing(three: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"labels file '.*none' cannot be read \(No such file"):
        resolve("lcnet_050", three, str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("folders", "expected"),
    [(("0", "2"), [0, 2]), (("cat", "cow", "dog"), [0, 1, 2]), (("cat", "dog"), None)],
    ids=["indices", "as-many", "too-few"],
)
def test_a_classifier_without_labels(
    folders: tuple[str, ...], expected: list[int] | None, three: str, tmp_path: Path
) -> None:
    info = load_reference("lcnet_050", weights=three).info
    assert (info.num_classes, info.labels) == (3, ())
    for k, folder in enumerate(folders):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((8, 8, 3), k, np.uint8)).save(tmp_path / folder / "a.png")
    images = scan(tmp_path)
    if expected is not None:
        assert labels_for(images, info.labels, num_classes=info.num_classes).tolist() == expected
        return
    with pytest.raises(InputError, match=r"no class of the model.*no label names.*exactly 3 folders"):
        labels_for(images, info.labels, num_classes=info.num_classes)
