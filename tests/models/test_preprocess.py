"""The preprocessing contract against timm's own evaluation pipeline, pixel for pixel."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from timm.data import create_transform

from cspedge.data.images import decode
from cspedge.errors import InputError
from cspedge.models.preprocess import manifest, resolve, to_float, transform

PHOTOS = Path(__file__).parents[2].parent / "shared" / "data" / "caltech101" / "val"
CFG = {
    "input_size": (3, 128, 128),
    "crop_pct": 0.875,
    "crop_mode": "center",
    "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
CONTRACTS = [
    CFG,
    {**CFG, "interpolation": "bilinear", "crop_pct": 1.0},
    {**CFG, "input_size": (3, 96, 96), "crop_pct": 0.95, "crop_mode": "squash"},
    {**CFG, "crop_mode": "border", "mean": (0.5, 0.2, 0.9)},
    {**CFG, "input_size": (3, 64, 128)},
]


def assert_as_timm(path: Path, cfg: dict[str, object]) -> None:
    """Our two halves (uint8 pixels, then /255 and the normalisation of the graph) against timm's one."""
    theirs = create_transform(**cfg, is_training=False)
    with Image.open(path) as image:
        expected = theirs(image.convert("RGB")).numpy()
    ours = to_float(transform(resolve(cfg))(decode(path).image)[None])[0]
    mean, std = (np.array(cfg[k], dtype=np.float32)[:, None, None] for k in ("mean", "std"))
    np.testing.assert_array_equal((ours - mean) / std, expected)


@pytest.mark.parametrize("cfg", CONTRACTS, ids=["plain", "full", "squash", "border", "oblong"])
def test_real_photographs_are_equal_to_timms(cfg: dict[str, object]) -> None:
    if not PHOTOS.is_dir():
        pytest.skip(f"no photographs at {PHOTOS.name}: shared/data/caltech101 is not beside this checkout")
    photos = sorted(PHOTOS.rglob("*.jpg"))
    grey = []
    sizes = set()
    for path in photos:
        with Image.open(path) as image:
            sizes.add(image.size)
            if image.mode == "L":
                grey.append(path)
    chosen = [*photos[::40], *grey[:4]]
    assert len(chosen) > 30
    assert len(sizes) > 100
    assert grey
    for path in chosen:
        assert_as_timm(path, cfg)


def made(kind: str, folder: Path) -> Path:
    noise = np.random.default_rng(7).integers(0, 256, (150, 211, 4), dtype=np.uint8)
    path = folder / "image.png"
    if kind == "cmyk":
        path = path.with_suffix(".jpg")
        Image.fromarray(noise, "CMYK").save(path)
    elif kind == "rgba":
        Image.fromarray(noise, "RGBA").save(path)
    elif kind == "palette":
        Image.fromarray(noise[..., :3]).quantize(31).save(path, transparency=3)
    elif kind == "grey16":
        Image.fromarray(noise[..., 0].astype(np.uint16) * 3).save(path)
    elif kind == "grey-alpha":
        Image.fromarray(noise[..., :3]).convert("LA").save(path)
    elif kind == "bilevel":
        Image.fromarray(noise[..., 0]).convert("1").save(path)
    elif kind == "animated":
        path = path.with_suffix(".gif")
        frames = [Image.fromarray(np.roll(noise[..., :3], k, 1)) for k in (0, 9)]
        frames[0].save(path, save_all=True, append_images=frames[1:])
    else:
        path = path.with_suffix(".jpg")
        exif = Image.Exif()
        exif[0x0112] = 6  # rotate by 90 degrees; timm does not
        Image.fromarray(noise[..., :3]).save(path, exif=exif)
    return path


@pytest.mark.parametrize(
    "kind", ["cmyk", "rgba", "palette", "grey16", "grey-alpha", "bilevel", "animated", "exif-rotated"]
)
def test_unusual_images_are_equal_to_timms(kind: str, tmp_path: Path) -> None:
    path = made(kind, tmp_path)
    for cfg in CONTRACTS:
        assert_as_timm(path, cfg)


def test_transform_gives_uint8_of_the_input_size() -> None:
    result = transform(resolve({**CFG, "input_size": (3, 64, 128)}))(Image.new("RGB", (40, 300), (255, 0, 7)))
    assert result.shape == (3, 64, 128)
    assert result.dtype == np.uint8
    assert [int(v) for v in result[:, 0, 0]] == [255, 0, 7]


def test_to_float_is_exact_for_every_level() -> None:
    levels = np.arange(256, dtype=np.uint8)
    result = to_float(levels)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, (levels.astype(np.float64) / 255).astype(np.float32))
    np.testing.assert_array_equal(np.rint(result * 255), levels)
    with pytest.raises(TypeError, match="uint8"):
        to_float(result)  # type: ignore[arg-type]


def test_resolve_follows_timm() -> None:
    assert resolve(CFG).crop_pct == 0.875
    assert resolve({}).input_size == (3, 224, 224)
    assert resolve(CFG, img_size=160).input_size == (3, 160, 160)
    test_size = {**CFG, "test_input_size": (3, 256, 256), "test_crop_pct": 1.0}
    assert resolve(test_size).input_size == (3, 128, 128)
    larger = resolve(test_size, use_test_size=True)
    assert (larger.input_size, larger.crop_pct) == ((3, 256, 256), 1.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input_size": (1, 28, 28)}, "takes 1 input channels"),
        ({"input_size": (3, 0, 28)}, "above 0"),
        ({"input_size": (3, 28)}, "input_size"),
        ({"interpolation": "random"}, "unknown interpolation 'random'.*bicubic"),
        ({"crop_mode": "tiles"}, "unknown crop mode 'tiles'.*center"),
        ({"crop_pct": float("nan")}, "crop_pct"),
        ({"mean": ("a", 0, 0)}, "mean"),
        ({"std": (0.1, 0.0, 0.1)}, "std"),
    ],
)
def test_resolve_refuses_what_evaluation_cannot_do(change: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        resolve({**CFG, **change})


def test_a_one_channel_model_is_refused() -> None:
    with pytest.raises(InputError, match="takes 1 input channels"):
        resolve(CFG, in_chans=1)


def test_manifest_is_plain_json_and_complete() -> None:
    contract = manifest(resolve(CFG))
    assert json.loads(json.dumps(contract, allow_nan=False)) == contract
    assert contract["input_size"] == [3, 128, 128]
    assert contract["resize"]["interpolation"] == "bicubic"
    assert contract["normalization"] == {"mean": [*CFG["mean"]], "std": [*CFG["std"]], "where": "in the graph"}


def test_bytes_and_path_decode_alike(tmp_path: Path) -> None:
    path = made("rgba", tmp_path)
    assert decode(path).image.tobytes() == decode(path.read_bytes()).image.tobytes()
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        assert decode(path).image.tobytes() == image.convert("RGB").tobytes()
