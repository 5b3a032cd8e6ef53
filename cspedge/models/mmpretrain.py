"""mmpretrain's CSPNet checkpoints as timm models: the same networks under other parameter names.

mmpretrain publishes three checkpoints, converted from timm's own. Its networks and timm's are the same functions:
blocks, halves and order of the concatenation, batch norm epsilon (1e-5), LeakyReLU slope (0.01), stem, pooling. So a
checkpoint needs its parameters renamed, none of them changed; and the preprocessing of its own test configuration.
Sources: mmpretrain 1.2.0, `models/backbones/cspnet.py`, `configs/cspnet/*.py` and `configs/cspnet/metafile.yml`.
`tests/models/test_mmpretrain.py` compares all of this with mmpretrain's real modules.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cspedge.errors import UsageError, unknown

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

PREFIX = "mmpretrain:"
ZOO = "https://download.openmmlab.com/mmclassification/v0/cspnet/"
# In its configurations these stand in 0 to 255: 123.675, 116.28, 103.53 and 58.395, 57.12, 57.375, RGB.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A published checkpoint.

    architecture: timm's entry point of the same network; resize: pixels of the shorter edge before the crop; crop:
    pixels on a side of the input; bottleneck: whether its blocks are ResNet's bottlenecks, which mmpretrain spells
    differently; file: its name in the model zoo.
    """

    name: str
    architecture: str
    resize: int
    crop: int
    bottleneck: bool
    file: str


CHECKPOINTS = {
    checkpoint.name: checkpoint
    for checkpoint in (
        Checkpoint(
            name="cspdarknet50_3rdparty_8xb32_in1k",
            architecture="cspdarknet53",
            resize=288,
            crop=256,
            bottleneck=False,
            file="cspdarknet50_3rdparty_8xb32_in1k_20220329-bd275287.pth",
        ),
        Checkpoint(
            name="cspresnet50_3rdparty_8xb32_in1k",
            architecture="cspresnet50",
            resize=288,
            crop=256,
            bottleneck=True,
            file="cspresnet50_3rdparty_8xb32_in1k_20220329-dd6dddfb.pth",
        ),
        Checkpoint(
            name="cspresnext50_3rdparty_8xb32_in1k",
            architecture="cspresnext50",
            resize=256,
            crop=224,
            bottleneck=True,
            file="cspresnext50_3rdparty_8xb32_in1k_20220329-2cc84d21.pth",
        ),
    )
}

_STAGE_NAMES = {
    "conv_down": "downsample_conv",
    "conv_exp": "expand_conv",
    "conv_transition_b": "atfer_blocks_conv",  # mmpretrain's own spelling
    "conv_transition": "final_conv",
}
# What mmengine's and mmcv's checkpoints hold beside tensors: configuration, log and optimizer state. numpy renamed its
# core module in 2.0.
_METADATA = (
    "builtins.getattr",  # how a method of HistoryBuffer is written down
    "addict.addict.Dict",
    "mmcv.utils.config.Config",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.Config",
    "mmengine.config.config.ConfigDict",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
)


class Ignored:
    """Stands for every piece of metadata in a checkpoint: takes whatever it is given, keeps and runs nothing."""

    def __new__(cls, *_: Any) -> Ignored:
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def names() -> tuple[str, ...]:
    """The models as `cspedge` takes them, `mmpretrain:` included."""
    return tuple(PREFIX + name for name in CHECKPOINTS)


def find(model: str, weights: str | None) -> Checkpoint:
    """The checkpoint that `model` (with `mmpretrain:`) names.

    Raises UsageError for an unknown name, or where no weights file is given: cspedge fetches none of mmpretrain's.
    """
    checkpoint = CHECKPOINTS.get(model.removeprefix(PREFIX))
    if checkpoint is None:
        raise unknown("model", model, names())
    if weights is None:
        raise UsageError(
            f"{model!r} needs its weights file; give --weights FILE, "
            f"which mmpretrain's model zoo publishes as {ZOO}{checkpoint.file}"
        )
    return checkpoint


def parameter_name(parameter: str, checkpoint: Checkpoint) -> str:
    """mmpretrain's name of a parameter or buffer that timm calls `parameter`; every one gets a name of its own."""
    if parameter.startswith("head."):
        return parameter
    stem = "stem.0." if checkpoint.bottleneck else "stem."  # a Sequential where a pooling follows
    renamed = re.sub(r"^stem\.conv1\.", stem, parameter)
    renamed = re.sub(r"^(stages\.\d+\.)(conv_\w+)", lambda m: m[1] + _STAGE_NAMES.get(m[2], m[2]), renamed)
    if checkpoint.bottleneck:
        renamed = re.sub(r"(blocks\.\d+\.)conv(\d)\.conv\.", r"\1conv\2.", renamed)
        renamed = re.sub(r"(blocks\.\d+\.)conv(\d)\.bn\.", r"\1bn\2.", renamed)
    return f"backbone.{renamed}"


def pretrained_cfg(checkpoint: Checkpoint) -> PretrainedCfg:
    """The checkpoint's own test preprocessing in timm's words.

    mmpretrain resizes the shorter edge to `resize` pixels (bicubic, Pillow), the longer one rounded down, and crops
    the middle: pixel for pixel what timm does where floor(input size / crop_pct) is `resize`, as here.
    """
    import timm
    from timm.models import PretrainedCfg

    own = timm.get_pretrained_cfg(checkpoint.architecture)
    return PretrainedCfg(
        architecture=checkpoint.architecture,
        input_size=(3, checkpoint.crop, checkpoint.crop),
        crop_pct=checkpoint.crop / checkpoint.resize,
        crop_mode="center",
        interpolation="bicubic",
        mean=MEAN,
        std=STD,
        num_classes=1000,
        first_conv=own.first_conv,
        classifier=own.classifier,
    )


def metadata() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """What `torch.serialization.safe_globals` must know to read these files with `weights_only=True`.

    Each name stands for `Ignored`: no code of mmengine, numpy or Python itself is reached from the file.
    """
    return [(Ignored, name) for name in _METADATA]
