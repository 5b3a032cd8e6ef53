"""Whose work is in a bundle, and on what terms; what nobody said is `unknown`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cspedge.errors import UsageError

UNKNOWN = "unknown"
_TEXT = """{what}

License: {license}
Attribution: {attribution}
{more}"""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """An SPDX identifier or expression, or `unknown`, and who is to be named."""

    license: str = UNKNOWN
    attribution: str | None = None

    def entry(self) -> dict[str, Any]:
        return {"license": self.license, "attribution": self.attribution}


def spdx(text: str) -> str:
    """The SPDX spelling of a license identifier or expression; UsageError for anything else."""
    from cspedge.bundle.bom import require_cyclonedx

    require_cyclonedx()
    from cyclonedx.spdx import fixup_id, is_expression

    found = fixup_id(text)
    if found is not None:
        return found
    if text == UNKNOWN or is_expression(text):
        return text
    raise UsageError(f"--license {text!r} is no SPDX identifier; give one of https://spdx.org/licenses, as Apache-2.0")


def weights_terms(model: str | None, weights: str | None, license: str | None, attribution: str | None) -> Terms:
    """Of the weights: what the user says, else what comes with cspedge's own, else what timm publishes."""
    if license is not None or attribution is not None:
        return Terms(license=UNKNOWN if license is None else spdx(license), attribution=attribution)
    if model is None:
        return Terms(license="Apache-2.0", attribution="cspedge's own lcnet_050, trained on scikit-learn's digits")
    if weights is None and ":" not in model:
        return _published(model)
    return Terms()


def images_terms(val: str | None) -> Terms:
    """Of the golden images: known for the built-in digits alone."""
    if val is not None:
        return Terms()
    return Terms(
        license="CC-BY-4.0",
        attribution="E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning "
        "Repository, 1998, https://doi.org/10.24432/C50P49; grey levels rescaled to 0-255",
    )


def _published(name: str) -> Terms:
    """What timm's own configuration says of its published weights."""
    from cyclonedx.spdx import fixup_id
    from timm.models import get_pretrained_cfg

    try:
        config = get_pretrained_cfg(name)
    except (RuntimeError, KeyError):
        return Terms()
    if config is None:
        return Terms()
    return Terms(license=fixup_id(config.license or "") or UNKNOWN, attribution=config.origin_url or config.url or None)


def write(folder: Path, weights: Terms, images: Terms) -> list[str]:
    """Writes LICENSES/ below the bundle `folder`; the paths, sorted."""
    texts = {
        "cspedge.txt": ("Files that cspedge wrote: manifest.json, bom.cdx.json, run.py and the like.", _CSPEDGE),
        "golden.txt": ("The images in golden/.", images),
        "weights.txt": ("The model's weights, in every file below artifacts/.", weights),
    }
    (folder / "LICENSES").mkdir()
    for name, (what, terms) in texts.items():
        known = terms.license.replace(".", "").replace("-", "").isalnum() and terms.license != UNKNOWN
        more = f"Text: https://spdx.org/licenses/{terms.license}.html\n" if known else ""
        text = _TEXT.format(what=what, license=terms.license, attribution=terms.attribution or UNKNOWN, more=more)
        (folder / "LICENSES" / name).write_text(text, encoding="utf-8", newline="\n")
    return [f"LICENSES/{name}" for name in sorted(texts)]


_CSPEDGE = Terms(license="Apache-2.0", attribution="cspedge")
