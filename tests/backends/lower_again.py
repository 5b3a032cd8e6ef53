"""Child process of the contract test: does the whole work again and prints the artifact's digest."""

from __future__ import annotations

import json
import sys

from cspedge import api


def main(target: str, out: str) -> None:
    reference = api.load_reference()
    quantized = api.quantize(reference, api.collect_calibration(reference, count=64))
    artifact = api.lower(quantized, target, "int8", out=out, name="digits")
    print(json.dumps({"sha256": artifact.sha256}))


if __name__ == "__main__":
    main(*sys.argv[1:])
