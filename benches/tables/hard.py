"""Tables whose density is known and that are hard for a flow, fitted by the default command, as CSV on standard output.

    python benches/tables/hard.py --moonflow target/release/moonflow --first 11 --seeds 3 > hard.csv

`gap` is the mean of log p_true - log p over 10,000 fresh rows, in nats. For separated modes there are the share of
100,000 samples that belongs to the mode on the right (truth: 0.25) and the share that lies between modes. Options after
`--` go to `moonflow train`. Wants numpy.
"""

import argparse
import csv
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROWS = 10_000
FRESH = 10_000
SAMPLES = 100_000
LOG_2_PI = math.log(2 * math.pi)


def pair(draw, log_density):
    """Two independent columns of one law."""
    def make(random):
        def rows(count):
            x = draw(random, (count, 2))
            return x, log_density(x).sum(1)
        return rows
    return make


def normal(x, centre):
    return -0.5 * (x - centre) ** 2 - 0.5 * LOG_2_PI


def bimodal(random, shape):
    return random.normal(size=shape) + 3.0 * (2 * random.integers(0, 2, shape) - 1)


def four_gaussians(random):
    centres = random.uniform(0, 40, (4, 8))

    def rows(count):
        x = centres[random.integers(0, 4, count)] + random.normal(size=(count, 8))
        terms = np.stack([normal(x, centre).sum(1) for centre in centres])
        return x, np.logaddexp.reduce(terms, 0) - math.log(4)

    rows.between = lambda x: (np.linalg.norm(x[:, None] - centres, axis=2).min(1) > 6).mean()
    return rows


def two_modes(random):
    def rows(count):
        right = random.permutation(np.arange(count) < count // 4)
        x = random.normal(size=(count, 2))
        x[:, 0] += np.where(right, 8, -8)
        column = np.logaddexp(normal(x[:, 0], 8) + math.log(0.25), normal(x[:, 0], -8) + math.log(0.75))
        return x, column + normal(x[:, 1], 0)

    rows.between = lambda x: (np.abs(x[:, 0]) < 4).mean()
    rows.right = lambda x: (x[:, 0] > 0).mean()
    return rows


def triangular(x):
    return np.log(np.where(x < 0.5, 4 * x, 4 * (1 - x)))


# Of each table what makes it, and flags that a person would give.
TABLES = {
    "uniform": (pair(lambda random, shape: random.random(shape), np.zeros_like), []),
    "triangular": (pair(lambda random, shape: random.triangular(0, 0.5, 1, shape), triangular), []),
    "exponential": (pair(lambda random, shape: random.exponential(1, shape), lambda x: -x), []),
    "bimodal": (pair(bimodal, lambda x: np.logaddexp(normal(x, 3), normal(x, -3)) - math.log(2)), []),
    "integers": (
        pair(lambda random, shape: random.integers(0, 11, shape).astype(float), lambda x: x * 0 - math.log(11)),
        ["--dequantize", "a,b"],
    ),
    "four Gaussians in 8 dimensions": (four_gaussians, []),
    "two modes": (two_modes, []),
}


def write(path, x):
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow("abcdefgh"[: x.shape[1]])
        out.writerows([repr(float(value)) for value in row] for row in x)


def run(*command):
    """Standard output of `command`; ends with its error message where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr.strip()}")
    return done.stdout


def fit(moonflow, name, seed, options):
    """Gap in nats, share on the right and share between modes, of the default fit."""
    make, flags = TABLES[name]
    rows = make(np.random.default_rng(seed))
    (train, _), (fresh, truth) = rows(ROWS), rows(FRESH)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write(folder / "train.csv", train)
        write(folder / "fresh.csv", fresh)
        model = str(folder / "run/model.safetensors")
        flags = [*flags, *options, "--seed", str(seed), "--device", "cpu"]
        run(moonflow, "train", str(folder / "train.csv"), "--out", str(folder / "run"), *flags)
        scored = run(moonflow, "score", "--model", model, str(folder / "fresh.csv"), "--device", "cpu")
        gap = (truth - np.array([float(line) for line in scored.split()[1:]])).mean()
        shares = [getattr(rows, share, None) for share in ("right", "between")]
        if not any(shares):
            return gap, "", ""
        drawn = run(moonflow, "sample", "--model", model, "-n", str(SAMPLES), "--device", "cpu")
        samples = np.loadtxt(drawn.splitlines(), delimiter=",", skiprows=1)
        return gap, *(f"{share(samples):.5f}" if share else "" for share in shares)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--moonflow", default="target/release/moonflow")
    parser.add_argument("--tables", type=lambda text: text.split(","), default=list(TABLES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed, of the table and of the fit")
    parser.add_argument("options", nargs="*", help="flags for moonflow train, after --")
    arguments = parser.parse_args()
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(["table", "seed", "gap", "right", "between"])
    for name in arguments.tables:
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            gap, right, between = fit(arguments.moonflow, name, seed, arguments.options)
            out.writerow([name, seed, f"{gap:.4f}", right, between])
            sys.stdout.flush()


if __name__ == "__main__":
    main()
