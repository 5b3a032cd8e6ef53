"""Images in: folders and the built-in digits, their labels, sampling and decoding."""

from __future__ import annotations

from cspedge.data.digits import Split, digits, write_digits
from cspedge.data.images import Decoded, ImageList, check_disjoint, decode, labels_for, load, overlap, scan
from cspedge.data.sampling import sample, split

__all__ = [
    "Decoded",
    "ImageList",
    "Split",
    "check_disjoint",
    "decode",
    "digits",
    "labels_for",
    "load",
    "overlap",
    "sample",
    "scan",
    "split",
    "write_digits",
]
