"""The machine's rate of arithmetic: seconds of one product of f32 matrices by numpy's BLAS, 2048 by 2048 by 2048.

    python time_sgemm.py RUNS
"""

import json
import sys
import time

import numpy

SIDE = 2048


def main() -> None:
    """The command line."""
    numbers = numpy.random.default_rng(0)
    a, b = (numbers.standard_normal((SIDE, SIDE), dtype=numpy.float32) for _ in range(2))
    times = []
    for _ in range(5 * int(sys.argv[1]) + 1):
        begun = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - begun)
    print(json.dumps({"sgemm": times[1:]}))


if __name__ == "__main__":
    main()
