"""timm's published weights: a hub cache as huggingface_hub lays it out, and a hub that answers over HTTP."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import timm
from safetensors.torch import save_file

from cspedge.errors import InputError
from cspedge.models import hub
from cspedge.models.reference import load
from cspedge.models.source import resolve

NAME = "lcnet_050.ra2_in1k"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write_weights(file: Path, bias: float = 0.0) -> str:
    """A whole lcnet_050 of 1,000 classes; the SHA-256 of the file."""
    state = timm.create_model("lcnet_050").state_dict()
    state["classifier.bias"].fill_(bias)
    save_file(state, file)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def put(cache: Path, bias: float) -> str:
    """The weights in a hub cache: a blob by its digest, a snapshot that links to it, a ref that names the commit."""
    repository = cache / f"models--timm--{NAME}"
    snapshot = repository / "snapshots" / COMMIT
    for folder in (repository / "blobs", repository / "refs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    digest = write_weights(repository / "blobs" / "new", bias)
    (repository / "blobs" / "new").rename(repository / "blobs" / digest)
    (repository / "refs" / "main").write_text(COMMIT)
    link = snapshot / "model.safetensors"
    link.unlink(missing_ok=True)
    link.symlink_to(Path("..", "..", "blobs", digest))
    return digest


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache of this process, and no network."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return cache


@pytest.mark.parametrize("name", [NAME, "lcnet_050"])
def test_cached_weights_load_offline_and_their_content_is_the_key(name: str, offline: Path) -> None:
    digest = put(offline, bias=3.0)
    source = resolve(name)
    assert source.weights_sha256 == digest
    reference = load(source)
    assert set(reference.module.state_dict()["model.classifier.bias"].tolist()) == {3.0}
    info = reference.info
    assert (info.weights_sha256, info.num_classes, len(info.labels)) == (digest, 1000, 1000)
    other = put(offline, bias=4.0)
    assert other != digest
    again = resolve(name)
    assert again.weights_sha256 == other
    assert again.digest != source.digest


def test_damaged_cached_weights_say_so(offline: Path) -> None:
    digest = put(offline, bias=1.0)
    blob = offline / f"models--timm--{NAME}" / "blobs" / digest
    blob.write_bytes(blob.read_bytes()[:1000])
    with pytest.raises(InputError, match=f"the cached weights of '{NAME}' do not load: .*delete them"):
        load(resolve(NAME))


def test_a_pickle_in_the_cache_executes_nothing(offline: Path, tmp_path: Path) -> None:
    put(offline, bias=1.0)
    snapshot = offline / f"models--timm--{NAME}" / "snapshots" / COMMIT
    (snapshot / "model.safetensors").unlink()
    made = tmp_path / "made"
    (snapshot / "pytorch_model.bin").write_bytes(f"cos\nsystem\n(S'touch {made}'\ntR.".encode())
    with pytest.raises(InputError, match="do not load"):
        load(resolve(NAME))
    assert not made.exists()


def test_neither_network_nor_cache(offline: Path) -> None:
    with pytest.raises(
        InputError, match=r"timm publishes weights for 'lcnet_050\.ra2_in1k' \(timm/lcnet_050.*--weights"
    ):
        resolve(NAME)


@pytest.mark.parametrize("name", ["lcnet_035", "lcnet_150"])
def test_an_architecture_without_published_weights(name: str, offline: Path) -> None:
    with pytest.raises(
        InputError, match=f"has the architecture '{name}' but publishes no weights.*give --weights FILE"
    ):
        resolve(name)
    assert not hub.published(name)


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks of a hub for one file."""

    files: dict[str, bytes]
    asked: list[str]
    status = 200

    def do_HEAD(self) -> None:
        body = self.files.get(self.path.rpartition("/")[2])
        if self.path.startswith("/timm/"):
            self.asked.append(f"{self.command} {self.path}")
        self.send_response(self.status if body is not None else 404)
        self.send_header("X-Repo-Commit", COMMIT)
        if body is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.files.get(self.path.rpartition("/")[2], b""))

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[tuple[str, type[Hub]]]:
    handler = type("OneHub", (Hub,), {"files": {}, "asked": []})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}", handler
    http.shutdown()
    http.server_close()


# Another process, because huggingface_hub reads its environment once, when it is imported.
CHILD = """
import json, sys
from cspedge.errors import InputError
from cspedge.models.source import resolve
try:
    print(json.dumps({"sha256": resolve(sys.argv[1]).weights_sha256}))
except InputError as error:
    print(json.dumps({"error": str(error)}))
"""


def resolved_elsewhere(home: Path, endpoint: str) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, "PYTHONPATH": root}
    for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        environment.pop(name, None)
    run = subprocess.run(
        [sys.executable, "-c", CHILD, NAME], env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    found: dict[str, str] = json.loads(run.stdout.splitlines()[-1])
    return found


def test_weights_are_fetched_once(server: tuple[str, type[Hub]], tmp_path: Path) -> None:
    endpoint, handler = server
    digest = write_weights(tmp_path / "weights")
    handler.files["model.safetensors"] = (tmp_path / "weights").read_bytes()
    assert resolved_elsewhere(tmp_path / "home", endpoint) == {"sha256": digest}
    assert [a for a in handler.asked if a.startswith("GET")] == [f"GET /timm/{NAME}/resolve/main/model.safetensors"]
    handler.asked.clear()
    assert resolved_elsewhere(tmp_path / "home", endpoint) == {"sha256": digest}
    assert handler.asked == [], "the cache is asked first"


def test_a_hub_that_fails_is_asked_once(server: tuple[str, type[Hub]], tmp_path: Path) -> None:
    endpoint, handler = server
    handler.files["model.safetensors"] = b"x"
    handler.status = 503
    assert "cannot be fetched" in resolved_elsewhere(tmp_path / "home", endpoint)["error"]
    assert len(handler.asked) == 1
