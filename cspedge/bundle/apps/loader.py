"""Runs this bundle: `python run.py photo.jpg` names what it sees, `python run.py --self-test` replays golden/.

Needs what requirements.txt names and nothing else. `import run; run.predict(image)` gives the outputs to a program.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
MANIFEST = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
DIGESTS = {file["path"]: file["sha256"] for file in MANIFEST["files"]}


def read(path: str) -> bytes:
    """The bytes whose digest was checked, so that nothing else is ever loaded."""
    data = (HERE / path).read_bytes()
    if hashlib.sha256(data).hexdigest() != DIGESTS[path]:
        raise SystemExit(f"{path} was changed; take the bundle again")
    return data


def load(artifact: dict[str, Any]) -> Callable[[Any], list[Any]]:
    """A function from float32 [1, 3, H, W], RGB in [0, 1], to the model's outputs."""
    if artifact["backend"] == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        exact = artifact["runtime"]["options"].get("x64quantprecision", True)
        options.add_session_config_entry("session.x64quantprecision", "1" if exact else "0")
        session = onnxruntime.InferenceSession(read(artifact["path"]), options, providers=["CPUExecutionProvider"])
        return lambda x: list(session.run(None, {MANIFEST["input"]["name"]: x}))
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it would report the import
    import openvino

    weights = openvino.Tensor(np.frombuffer(read(f"{artifact['path']}/model.bin"), np.uint8).copy())
    model = openvino.Core().read_model(read(f"{artifact['path']}/model.xml"), weights)
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda x: [np.array(value) for value in compiled(x).values()]


def check(width: int, height: int, what: str) -> None:
    """Exits with a sentence for a size that no image may have."""
    if not 0 < width * height <= MANIFEST["preprocess"]["max_pixels"]:
        limit = MANIFEST["preprocess"]["max_pixels"]
        raise SystemExit(f"{what} {width} x {height} pixels; 1 to {limit:,} are allowed, give a smaller image")


def prepare(image: Image.Image) -> Any:
    """An image as uint8 [3, H, W], by the manifest's contract."""
    rule, crop = MANIFEST["preprocess"]["resize"], MANIFEST["preprocess"]["crop"]
    check(*image.size, "the image is")
    image, (height, width) = image.convert("RGB"), (rule["height"], rule["width"])
    if rule["rule"] == "shorter-edge":
        edge = height
        w, h = image.size
        width, height = (edge, edge * h // w) if w <= h else (edge * w // h, edge)
    elif rule["rule"] != "exact":
        ratios = image.height / height, image.width / width
        ratio = min(ratios) if rule["rule"] == "cover" else max(ratios)
        height, width = round(image.height / ratio), round(image.width / ratio)
    check(width, height, "the image would be resized to")
    image = image.resize((width, height), Image.Resampling[rule["interpolation"].upper()])
    canvas = Image.new(
        "RGB", (max(width, crop["width"]), max(height, crop["height"])), tuple(MANIFEST["preprocess"]["pad"])
    )
    canvas.paste(image, ((canvas.width - width) // 2, (canvas.height - height) // 2))
    left, top = round((canvas.width - crop["width"]) / 2), round((canvas.height - crop["height"]) / 2)
    return np.asarray(canvas.crop((left, top, left + crop["width"], top + crop["height"]))).transpose(2, 0, 1)


def predict(image: Image.Image, artifact: dict[str, Any] = MANIFEST["artifacts"][0]) -> list[Any]:
    """The model's outputs for one image."""
    return load(artifact)(np.ascontiguousarray(prepare(image)[None] / np.float32(255), np.float32))


def self_test() -> None:
    """Every golden image through every artifact; exits with a sentence where an answer is off."""
    for artifact in MANIFEST["artifacts"]:
        run, worst = load(artifact), 0.0
        for index, golden in enumerate(MANIFEST["golden"]["images"]):
            tensor = prepare(Image.open(HERE / golden["file"]))
            found = run(np.ascontiguousarray(tensor[None] / np.float32(255), np.float32))
            for value, entry in zip(found, artifact["golden"], strict=True):
                expected = np.frombuffer(read(entry["file"]), "<f4").reshape(-1, *value.shape[1:])[index]
                worst = max(worst, float(np.abs(value[0] - expected).max()) / entry["max_abs"])
        if not worst <= 1:
            raise SystemExit(f"{artifact['path']} does not reproduce golden/: {worst:.3g} times the tolerance")
        print(f"{artifact['path']}: {len(MANIFEST['golden']['images'])} images, {worst:.3g} of the tolerance")


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        self_test()
    else:
        logits = predict(Image.open(sys.argv[1]))[0].ravel()
        chances = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        names = (HERE / "labels.txt").read_text(encoding="utf-8").splitlines() if MANIFEST["model"]["labels"] else []
        for best in np.argsort(-chances)[: min(5, len(chances))]:
            print(f"{chances[best]:.4f}  {names[best] if names else best}")
