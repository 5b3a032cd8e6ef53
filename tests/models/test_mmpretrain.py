"""mmpretrain's checkpoints against mmpretrain's real modules, transforms and training loop (`make mmpretrain`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
import timm
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cspedge.data.images import decode
from cspedge.errors import InputError, UsageError
from cspedge.models import mmpretrain
from cspedge.models.preprocess import resolve, to_float, transform
from cspedge.models.reference import load_reference

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-mmpretrain" / "bin" / "python"
NAMES = list(mmpretrain.CHECKPOINTS)
CSPRESNEXT50 = "cspresnext50_3rdparty_8xb32_in1k"
# Longer edges that do not divide evenly, odd differences to the crop, enlarging, one pixel, very long and very high.
SIZES = [(641, 427), (289, 288), (287, 288), (255, 256), (577, 576), (1999, 333), (33, 640), (640, 33), (8, 8), (1, 50)]
READ_OTHERWISE = ("turned.jpg", "cmyk.jpg", "deep.png")


def photographs(folder: Path) -> list[Path]:
    """scikit-learn's two photographs, one of them in other sizes and modes, and Caltech-101's where they are."""
    images = Path(sklearn.__file__).parent / "datasets" / "images"
    files = [images / "china.jpg", images / "flower.jpg"]
    with Image.open(files[0]) as photograph:
        photograph.load()
    made = {f"{w}x{h}.png": photograph.resize((w, h)) for w, h in SIZES}
    made |= {f"{mode}.png": photograph.convert(mode) for mode in ("L", "LA", "P", "RGBA")}
    made["L.jpg"] = photograph.convert("L")
    for name, image in made.items():
        image.save(folder / name)
    turned = Image.Exif()
    turned[0x112] = 6
    photograph.save(folder / "turned.jpg", exif=turned)
    photograph.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.asarray(made["L.png"]).astype(np.uint16) * 257).save(folder / "deep.png")
    files += [folder / name for name in (*made, *READ_OTHERWISE)]
    distinct: dict[tuple[int, int], Path] = {}
    for path in sorted((ROOT.parent / "shared" / "data" / "caltech101" / "val").rglob("*.jpg")):
        with Image.open(path) as image:
            distinct.setdefault(image.size, path)
    return files + list(distinct.values())[::5]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that mmpretrain_reference.py has written to."""
    if not PYTHON.is_file():
        pytest.skip("mmpretrain's environment is not there; `make mmpretrain` makes it")
    folder = tmp_path_factory.mktemp("mmpretrain")
    images = tmp_path_factory.mktemp("photographs")
    done = subprocess.run(
        [PYTHON, Path(__file__).with_name("mmpretrain_reference.py"), folder, *photographs(images)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    yield folder
    shutil.rmtree(folder)  # half a gigabyte, and pytest keeps the folders of three runs


def prepared(name: str) -> Callable[[Path], NDArray[np.uint8]]:
    apply = transform(resolve(mmpretrain.pretrained_cfg(mmpretrain.CHECKPOINTS[name]).to_dict()))
    return lambda path: apply(decode(path).image)


def of(made: Path, file: str) -> tuple[Path, NDArray[np.uint8]]:
    """A photograph and what the first model's own pipeline makes of it."""
    theirs = np.load(made / f"{NAMES[0]}.npz")
    paths = [Path(f) for f in theirs["files"]]
    index = [path.name for path in paths].index(file)
    return paths[index], theirs["crops"][index]


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_mmpretrains(name: str, made: Path) -> None:
    reference = load_reference(f"mmpretrain:{name}", weights=str(made / f"{name}.pth"))
    theirs = np.load(made / f"{name}.npz")
    prepare = prepared(name)
    images = np.stack([prepare(Path(file)) for file in theirs["files"][:2]])
    with torch.no_grad():
        ours = reference.module(torch.from_numpy(to_float(images))).numpy()
        of_tensor = reference.module.model(torch.from_numpy(theirs["tensor"])).numpy()
    assert np.abs(theirs["photograph_logits"][0] - theirs["photograph_logits"][1]).max() > 0.5, "images make logits"
    np.testing.assert_allclose(ours, theirs["photograph_logits"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(of_tensor, theirs["tensor_logits"], rtol=0, atol=1e-4)
    assert reference.info.name == name
    assert reference.info.num_classes == len(reference.info.labels) == 1000


@pytest.mark.parametrize("name", NAMES)
def test_photographs_are_prepared_pixel_for_pixel(name: str, made: Path) -> None:
    theirs = np.load(made / f"{name}.npz")
    prepare = prepared(name)
    assert len(theirs["files"]) > len(SIZES)
    for file, expected in zip(map(Path, theirs["files"]), theirs["crops"], strict=True):
        if file.name not in READ_OTHERWISE:
            np.testing.assert_array_equal(prepare(file), expected, err_msg=file.name)


def test_mmpretrain_applies_an_exif_orientation_and_timm_does_not(made: Path, tmp_path: Path) -> None:
    file, theirs = of(made, "turned.jpg")
    with Image.open(file) as image:
        ImageOps.exif_transpose(image).save(tmp_path / "upright.png")
    prepare = prepared(NAMES[0])
    np.testing.assert_array_equal(prepare(tmp_path / "upright.png"), theirs)
    assert (prepare(file) != theirs).any()


def test_mmpretrain_takes_the_upper_8_of_16_bits_and_timm_clips_them(made: Path) -> None:
    file, theirs = of(made, "deep.png")
    prepare = prepared(NAMES[0])
    np.testing.assert_array_equal(prepare(file.with_name("L.png")), theirs)
    assert (prepare(file) == 255).mean() > 0.9 > (theirs == 255).mean(), "every 16-bit grey above 255 is white"


def test_cmyk_is_two_levels_apart_at_most(made: Path) -> None:
    file, theirs = of(made, "cmyk.jpg")
    apart = np.abs(prepared(NAMES[0])(file).astype(int) - theirs)
    assert 0 < apart.max() <= 2


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_those_of_its_configuration(name: str, made: Path) -> None:
    theirs = json.loads((made / f"{name}.json").read_text(encoding="utf-8"))
    assert np.multiply(255, mmpretrain.MEAN) == pytest.approx(theirs["mean"], rel=1e-12)
    assert np.multiply(255, mmpretrain.STD) == pytest.approx(theirs["std"], rel=1e-12)
    assert theirs["weights"] == mmpretrain.ZOO + mmpretrain.CHECKPOINTS[name].file


@pytest.mark.parametrize(("head", "shapes"), [("embedding", [(2048,)]), ("features", [(64, 112, 112), (2048, 7, 7)])])
def test_a_checkpoint_of_mmengines_training_loop(head: str, shapes: list[tuple[int, ...]], made: Path) -> None:
    """Optimizer, schedule, log and configuration stand beside the weights, which are the moving average."""
    options = {"model": f"mmpretrain:{CSPRESNEXT50}", "weights": str(made / "trained.pth")}
    reference = load_reference(**options)
    theirs = np.load(made / "trained.npz")
    with torch.no_grad():
        ours = reference.module.model(torch.from_numpy(theirs["tensor"])).numpy()
    assert np.ptp(theirs["tensor_logits"]) > 0.01
    np.testing.assert_allclose(ours, theirs["tensor_logits"], rtol=0, atol=1e-4)
    assert (reference.info.num_classes, reference.info.labels) == (3, ())
    outputs = load_reference(**options, head=head).info.outputs
    assert [outputs[0].shape, outputs[-1].shape] == [shapes[0], shapes[-1]]


def state_of(name: str) -> dict[str, torch.Tensor]:
    """Zeros of every parameter's shape under mmpretrain's name; one number of storage each, so files are small."""
    checkpoint = mmpretrain.CHECKPOINTS[name]
    wanted = timm.create_model(checkpoint.architecture, device="meta").state_dict()
    state = {
        mmpretrain.parameter_name(k, checkpoint): torch.zeros((), dtype=v.dtype).expand(v.shape)
        for k, v in wanted.items()
    }
    assert len(state) == len(wanted), "each parameter has a name of its own"
    return state


def refusal(name: str, state: dict[str, torch.Tensor], file: Path) -> str:
    torch.save({"state_dict": state}, file)
    with pytest.raises(InputError) as caught:
        load_reference(f"mmpretrain:{name}", weights=str(file))
    return str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_fit_is_listed_in_mmpretrains_names(name: str, tmp_path: Path) -> None:
    state = state_of(name)
    del state["backbone.stages.2.atfer_blocks_conv.bn.running_var"]
    state["neck.fc.weight"] = torch.zeros(2)
    state["head.fc.weight"] = torch.zeros(1000, 7)
    said = refusal(name, state, tmp_path / "weights.pth")
    assert (
        "missing backbone.stages.2.atfer_blocks_conv.bn.running_var; left over neck.fc.weight; head.fc.weight is"
        in said
    )
    assert "[1000, 7], not [1000, " in said
    assert "more" not in said


def test_another_models_checkpoint_is_refused_with_six_of_its_differences(tmp_path: Path) -> None:
    said = refusal(NAMES[0], state_of(CSPRESNEXT50), tmp_path / "weights.pth")
    assert said.count("; ") == 6
    assert "missing backbone.stem.conv.weight" in said
    assert " more; " in said


class Call:
    """Pickled as a call of `function` on `arguments`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __call__(self) -> None:
        """Never; the pickler asks only whether it could be called."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("hidden", ["meta", "optimizer"])
@pytest.mark.parametrize(
    "attack",
    [
        lambda marker: Call(os.system, f"touch {marker}"),
        lambda marker: Call(eval, f"open({str(marker)!r}, 'w')"),
        lambda marker: Call(Path.touch, marker),
        lambda marker: Call(getattr, Call(__import__, "os"), "system"),
        # getattr is on the list of metadata, as a name that stands for nothing: what it gives cannot be called
        lambda marker: Call(Call(getattr, np.ndarray, "tofile"), str(marker)),
    ],
    ids=["system", "eval", "method", "import", "getattr"],
)
def test_code_in_a_checkpoint_is_refused(attack: Callable[[Path], Call], hidden: str, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    file = tmp_path / "weights.pth"
    torch.save({"state_dict": {"head.fc.bias": torch.zeros(3)}, hidden: attack(marker)}, file)
    with pytest.raises(InputError, match="cannot be read as tensors"):
        load_reference(f"mmpretrain:{CSPRESNEXT50}", weights=str(file))
    assert not marker.exists()


def test_names_and_files_that_are_not_there() -> None:
    with pytest.raises(UsageError, match="unknown model 'mmpretrain:resnet50'") as caught:
        load_reference("mmpretrain:resnet50", weights="any.pth")
    assert all(name in str(caught.value) for name in mmpretrain.names())
    with pytest.raises(UsageError, match=r"give --weights FILE.*https://download\.openmmlab\.com/\S+-2cc84d21\.pth"):
        load_reference(f"mmpretrain:{CSPRESNEXT50}")
    with pytest.raises(InputError, match=r"weights file 'none\.pth' does not exist"):
        load_reference(f"mmpretrain:{CSPRESNEXT50}", weights="none.pth")
