"""Processor time and peak memory of fitting kernel margins, by rows and columns, as CSV on standard output.

    python benches/tables/margins.py --moonflow target/release/moonflow > margins.csv

Each table is trained for one epoch of a small flow, with `--margins kernel` and with `--margins none`; `margins_seconds`
is the difference, in processor time over all threads. Half of the columns have two modes, half the tail of a log-normal.
Wants numpy.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SHAPES = [(1_000, 2), (1_000, 32), (10_000, 2), (10_000, 8), (10_000, 32), (100_000, 2), (100_000, 8), (1_000_000, 2)]
SMALL = "--preset spline --epochs 1 --layers 1 --hidden 4 --batch 1024 --device cpu".split()


def table(rows, columns):
    random = np.random.default_rng(rows + columns)
    x = random.normal(size=(rows, columns))
    x[:, ::2] += 6 * random.integers(0, 2, x[:, ::2].shape)
    x[:, 1::2] = np.exp(x[:, 1::2])
    return x


def train(moonflow, path, margins):
    """Processor time in seconds and peak memory in megabytes of one training."""
    with tempfile.TemporaryDirectory() as out:
        command = [moonflow, "train", path, "--margins", margins, "--out", out, *SMALL]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} ended with status {status}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--moonflow", default="target/release/moonflow")
    arguments = parser.parse_args()
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(["rows", "columns", "kernel_seconds", "none_seconds", "margins_seconds", "kernel_mb", "none_mb"])
    for rows, columns in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "t.npy")
            np.save(path, table(rows, columns))
            kernel, none = (train(arguments.moonflow, path, margins) for margins in ("kernel", "none"))
        row = [kernel[0], none[0], kernel[0] - none[0]]
        out.writerow([rows, columns, *(f"{value:.2f}" for value in row), f"{kernel[1]:.0f}", f"{none[1]:.0f}"])
        sys.stdout.flush()


if __name__ == "__main__":
    main()
