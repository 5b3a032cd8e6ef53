"""A recipe gives the same numbers, bit for bit, in another process with other hashes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = """
summary = "every step of default, in little"
[images]
count = 64
[correct]
bias = true
[learn]
epochs = 2
settle = 1
mix = true
drop = 0.1
"""
CHILD = """
import hashlib, sys
from cspedge import api
from cspedge.digest import canonical_json

reference = api.load_reference()
images = api.collect_calibration(reference, count=64)
model = api.quantize(reference, images, recipe=sys.argv[1])
parts = [canonical_json(model.encodings.to_dict()).encode()]
for tensors in (model.integer_weights, model.biases, model.equalization):
    parts += [name.encode() + tensors[name].numpy().tobytes() for name in sorted(tensors)]
print(hashlib.sha256(b"".join(parts)).hexdigest())
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("repeat") / "little.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def digest(recipe: Path, seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run([sys.executable, "-c", CHILD, str(recipe)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_two_processes_give_the_same_numbers(recipe: Path) -> None:
    assert digest(recipe, "1") == digest(recipe, "2")
