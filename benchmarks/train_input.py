"""How fast training images are prepared, with and without decoding once, on one thread.

`python benchmarks/train_input.py ../shared/data/caltech101/train --img-size 96 --img-size 224`

Prints a line per size, cache and place of augmentation: images per second of processor time, which a busy machine
changes less than it changes the clock's.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from itertools import product
from pathlib import Path

import torch

from cspedge.data import labels_for, scan
from cspedge.train import RECIPES, Augment, Cache
from cspedge.train.batches import Source, batches
from cspedge.train.cache import Pixels
from cspedge.train.dataset import check_images

CFG = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
BATCHES = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="one subfolder per class, or an archive of it")
    parser.add_argument("--img-size", type=int, action="append", required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    images = scan(given.folder)
    labels = labels_for(images, images.class_names, num_classes=len(images.class_names))
    sizes = check_images(images, 1)
    for img_size, cache in product(given.img_size, (Cache.NONE, Cache.RAM)):
        recipe = dataclasses.replace(RECIPES["default"], img_size=img_size)
        pixels = Pixels(images, sizes, recipe)
        begun = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            pixels.fill(cache, Path(folder))
        filled = time.process_time() - begun
        for augment in Augment:
            source = Source(
                pixels=pixels,
                labels=labels,
                recipe=recipe,
                cfg=CFG,
                workers=0,
                place=torch.device("cpu"),
                augment=augment,
            )
            prepared = batches(source)
            next(prepared)
            begun = time.process_time()
            for _ in range(BATCHES):
                next(prepared)
            rate = BATCHES * recipe.batch_size / (time.process_time() - begun)
            held = f"{pixels.nbytes / 1e6:.0f} MB, decoded in {filled:.1f} s" if cache is Cache.RAM else "decoded anew"
            print(f"{img_size} px, cache {cache}, augmented on {augment}: {rate:.0f} images/s ({held})", flush=True)


if __name__ == "__main__":
    main()
