"""The preprocessing contract against timm's own evaluation pipeline, pixel for pixel."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image
from timm.data import create_transform, resolve_data_config

from cspedge.data.images import decode
from cspedge.errors import InputError
from cspedge.models.preprocess import CROP_MODES, INTERPOLATIONS, manifest, resolve, to_float, transform

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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_no_exif_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (90, 130, 3), dtype=np.uint8)).save(path, exif=exif)
    with Image.open(path) as image:
        assert image.getexif()[0x0112] == orientation
    assert_as_timm(path, CFG)
    assert decode(path).image.size == (130, 90)


@pytest.fixture(scope="module")
def resized(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A real photograph from tiny to large, narrow, flat and one pixel high; grey and palette too."""
    if not PHOTOS.is_dir():
        pytest.skip(f"no photographs at {PHOTOS.name}: shared/data/caltech101 is not beside this checkout")
    folder = tmp_path_factory.mktemp("sizes")
    with Image.open(sorted(PHOTOS.rglob("*.jpg"))[0]) as image:
        photo = image.convert("RGB")
    sizes = [(8, 8), (1, 1), (200, 1), (1, 90), (63, 65), (128, 128), (31, 400), (1500, 1100)]
    files = [folder / f"{w}x{h}.png" for w, h in sizes]
    for file, size in zip(files, sizes, strict=True):
        photo.resize(size).save(file)
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    photo.convert("P").save(folder / "palette.gif")
    photo.convert("LA").save(folder / "grey.png")
    return [*files, folder / "cmyk.jpg", folder / "palette.gif", folder / "grey.png"]


@pytest.mark.parametrize("crop_mode", CROP_MODES)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_every_interpolation_and_crop_mode_on_every_size(
    interpolation: str, crop_mode: str, resized: list[Path]
) -> None:
    for path in resized:
        assert_as_timm(path, {**CFG, "interpolation": interpolation, "crop_mode": crop_mode, "crop_pct": 0.95})


@pytest.mark.parametrize("name", ["fbnetv3_b.ra2_in1k", "ese_vovnet19b_dw.ra_in1k", "cspdarknet53.ra_in1k"])
@pytest.mark.parametrize("kind", ["own", "test", "other"])
def test_image_sizes_are_resolved_as_by_timm(name: str, kind: str) -> None:
    """The test size with its crop is what timm's validate.py takes; any other size is timm's `img_size`."""
    cfg = timm.get_pretrained_cfg(name).to_dict()
    if kind == "test":
        theirs = resolve_data_config({}, pretrained_cfg=cfg, use_test_size=True)
    else:
        args = {"img_size": cfg["input_size"][1] if kind == "own" else 160}
        theirs = resolve_data_config(args, pretrained_cfg=cfg)
    ours = resolve(cfg, img_size=theirs["input_size"][1])
    assert {key: getattr(ours, key) for key in theirs} == theirs


@pytest.mark.parametrize(
    ("name", "size", "crop_pct", "shorter_edge"),
    [
        ("fbnetv3_b.ra2_in1k", 224, 0.95, 235),
        ("fbnetv3_b.ra2_in1k", 256, 0.95, 269),
        ("ese_vovnet19b_dw.ra_in1k", 224, 0.875, 256),
        ("ese_vovnet19b_dw.ra_in1k", 288, 0.95, 303),
    ],
)
def test_the_published_pairs_of_size_and_crop(name: str, size: int, crop_pct: float, shorter_edge: int) -> None:
    contract = resolve(timm.get_pretrained_cfg(name).to_dict(), img_size=size)
    assert (contract.input_size, contract.crop_pct) == ((3, size, size), crop_pct)
    assert manifest(contract)["resize"]["resize_shorter_edge"] == shorter_edge


@pytest.mark.parametrize(
    ("change", "scaled", "first"),
    [
        ({}, {"resize_shorter_edge": 146}, (189, 146)),
        ({"crop_mode": "squash"}, {"resize_to": [146, 146]}, (146, 146)),
        ({"crop_mode": "border"}, {"resize_to_fit": [146, 146], "pad": [124, 116, 104]}, (146, 112)),
        ({"input_size": (3, 64, 128)}, {"resize_to_cover": [73, 146]}, (146, 112)),
    ],
    ids=["center", "squash", "border", "oblong"],
)
def test_the_manifests_resize_rule_is_what_timm_does(
    change: dict[str, object], scaled: dict[str, object], first: tuple[int, int]
) -> None:
    cfg = {**CFG, **change}
    rule = manifest(resolve(cfg))["resize"]
    assert {key: rule[key] for key in rule if key.startswith(("resize_", "pad"))} == scaled
    assert rule["crop"] == [*cfg["input_size"]][1:]
    steps = create_transform(**cfg, is_training=False).transforms
    assert steps[0](Image.new("RGB", (130, 100))).size == first


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
