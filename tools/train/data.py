"""Renders scenes of the drawn world to a folder that training reads.

    python data.py --split train --count 80000 --seed 0 -o DIR [--width 128] [--height 128]

The folder holds images.npy (uint8, N x H x W x 3), captions.json (a list of captions for each picture) and labels.json
(what is to be seen in it). Scene number i has the seed `--seed` + i.
"""

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy

from world import captions, draw, sample

CHUNK = 500


def labels(scene) -> dict:
    """What the judge is to find in a picture."""
    subjects = [{"kind": one.kind, "colour": one.colour, "size": one.size} for one in scene.subjects]
    return {"subjects": subjects, "setting": scene.setting, "time": scene.time, "relation": scene.relation}


def render(path: Path, split: str, seed: int, rows: range, width: int, height: int) -> None:
    """Draws some rows into the pictures' file."""
    pictures = numpy.lib.format.open_memmap(path, mode="r+")
    for row in rows:
        pictures[row] = draw(sample(seed + row, split), width, height)
    pictures.flush()


def write_json(path: Path, content) -> None:
    """Beside its place first."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content) + "\n", encoding="utf-8")
    os.replace(partial, path)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--split", choices=("train", "test", "unseen"), default="train")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0, help="of the first scene")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--captions", type=int, default=8, help="for each picture")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args()
    if args.width % 8 or args.height % 8 or min(args.width, args.height) < 64 or args.count < 1:
        raise SystemExit("sides are multiples of 8 and at least 64, and at least one picture is drawn")
    args.output.mkdir(parents=True, exist_ok=True)
    partial = args.output / "images.partial"
    shape = (args.count, args.height, args.width, 3)
    numpy.lib.format.open_memmap(partial, mode="w+", dtype=numpy.uint8, shape=shape)
    chunks = [range(start, min(start + CHUNK, args.count)) for start in range(0, args.count, CHUNK)]
    with ProcessPoolExecutor(args.processes) as pool:
        jobs = [pool.submit(render, partial, args.split, args.seed, rows, args.width, args.height) for rows in chunks]
        for done, job in enumerate(jobs, 1):
            job.result()
            print(f"\r{min(done * CHUNK, args.count)} of {args.count}", end="", flush=True)
    print()
    os.replace(partial, args.output / "images.npy")
    scenes = [(args.seed + row, sample(args.seed + row, args.split)) for row in range(args.count)]
    write_json(args.output / "captions.json", [captions(scene, seed, args.captions) for seed, scene in scenes])
    write_json(args.output / "labels.json", [labels(scene) for _, scene in scenes])


if __name__ == "__main__":
    main()
