"""Compares two safetensors files tensor by tensor, or two PNGs.

    python compare.py reference.safetensors ours.safetensors --tolerance 1e-4
    python compare.py reference.png ours.png --tolerance 2

Tensors: the relative L2 error |a - b| / |a|, in the execution order of the first file (its metadata `order`, else its
keys). PNGs: the largest difference, in steps of 1/255. Exit code 1 if anything exceeds the tolerance, is missing from
the second file, has another shape or is not finite.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open


def execution_order(file) -> list[str]:
    """Keys in the order in which they were computed."""
    listed = json.loads((file.metadata() or {}).get("order", "[]"))
    return listed or list(file.keys())


def tensor_error(a: torch.Tensor, b: torch.Tensor) -> tuple[float, float]:
    """Relative L2 error and largest absolute difference, in f64."""
    a, b = a.double(), b.double()
    difference = a - b
    norm = a.norm().item()
    error = difference.norm().item() / norm if norm else difference.norm().item()
    return error, difference.abs().max().item() if difference.numel() else 0.0


def compare_tensors(first: Path, second: Path, tolerance: float, failures_only: bool) -> bool:
    """Prints the table; says whether all is within tolerance."""
    rows, missing = [], []
    with safe_open(first, "pt") as a, safe_open(second, "pt") as b:
        theirs = set(b.keys())
        for key in execution_order(a):
            if key not in theirs:
                missing.append(key)
                continue
            x, y = a.get_tensor(key), b.get_tensor(key)
            if x.shape != y.shape:
                rows.append((key, f"{list(x.shape)} against {list(y.shape)}", float("inf"), float("inf")))
            else:
                rows.append((key, str(list(x.shape)), *tensor_error(x, y)))
        extra = sorted(theirs - set(a.keys()))
    wrong = [row for row in rows if not row[2] <= tolerance]  # not <=: catches NaN too
    width = max((len(row[0]) for row in rows), default=3)
    print(f"{'tensor':{width}}  {'rel L2':>9}  {'max abs':>9}  shape")
    for row in wrong if failures_only else rows:
        mark = "" if row[2] <= tolerance else "  <-- over tolerance"
        print(f"{row[0]:{width}}  {row[2]:9.2e}  {row[3]:9.2e}  {row[1]}{mark}")
    for name, keys in ((f"missing from {second}", missing), (f"only in {second}", extra)):
        if keys:
            print(f"{name}: {len(keys)}, such as {', '.join(keys[:5])}")
    if rows:
        worst = max(rows, key=lambda row: row[2] if row[2] == row[2] else float("inf"))
        print(f"worst: {worst[0]} {worst[2]:.2e}")
    if wrong:
        print(f"first over {tolerance:g}: {wrong[0][0]} {wrong[0][2]:.2e}; {len(wrong)} of {len(rows)} tensors are")
    return bool(rows) and not wrong and not missing


def compare_pictures(first: Path, second: Path, tolerance: float) -> bool:
    """Prints how far two pictures are apart; says whether they are within tolerance."""
    a, b = (np.asarray(Image.open(path).convert("RGB"), dtype=np.int16) for path in (first, second))
    if a.shape != b.shape:
        print(f"sizes differ: {a.shape[1]}x{a.shape[0]} against {b.shape[1]}x{b.shape[0]}")
        return False
    difference = np.abs(a - b)
    differing = np.mean(difference > 0)
    print(f"max {difference.max()}/255, mean {difference.mean():.4f}/255, {differing:.2%} of values differ")
    return bool(difference.max() <= tolerance)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="the reference")
    parser.add_argument("second", type=Path)
    parser.add_argument("--tolerance", type=float, help="default 1e-3 for tensors, 1 for PNGs")
    parser.add_argument("--failures", action="store_true", help="list only what is over the tolerance")
    args = parser.parse_args()
    if args.first.suffix.lower() == ".png":
        tolerance = 1 if args.tolerance is None else args.tolerance
        same = compare_pictures(args.first, args.second, tolerance)
    else:
        tolerance = 1e-3 if args.tolerance is None else args.tolerance
        same = compare_tensors(args.first, args.second, tolerance, args.failures)
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
