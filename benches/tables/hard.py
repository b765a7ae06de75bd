"""Tables whose density is known and that are hard for a flow, fitted by the default command, as CSV on standard output.

    python benches/tables/hard.py --moonflow target/release/moonflow --first 11 --seeds 3 > hard.csv

`gap` is the mean of log p_true - log p over 10,000 fresh rows, in nats, and `suspicious` counts what the self-check found.
For separated modes there are the share of 100,000 samples that belongs to the mode on the right (truth: 0.25) and the
share that lies between modes. Options after `--` go to `moonflow train`. Wants numpy.
"""

import argparse
import csv
import itertools
import math
import sys
import tempfile
from pathlib import Path

import numpy as np

from program import run

ROWS = 10_000
FRESH = 10_000
SAMPLES = 100_000
LOG_2_PI = math.log(2 * math.pi)
NAMES = "abcdefgh"


def normal(x, centre):
    return -0.5 * (x - centre) ** 2 - 0.5 * LOG_2_PI


def modes_at_three(random, count):
    return random.normal(size=count) + 3.0 * (2 * random.integers(0, 2, count) - 1)


def triangular(x):
    return np.log(np.where(x < 0.5, 4 * x, 4 * (1 - x)))


def log_modes_at_three(x):
    return np.logaddexp(normal(x, 3), normal(x, -3)) - math.log(2)


# Of each law of a column how it is drawn, and its log-density.
LAWS = {
    "uniform": (lambda random, count: random.random(count), np.zeros_like),
    "triangular": (lambda random, count: random.triangular(0, 0.5, 1, count), triangular),
    "exponential": (lambda random, count: random.exponential(1, count), lambda x: -x),
    "bimodal": (modes_at_three, log_modes_at_three),
    "integers": (
        lambda random, count: random.integers(0, 11, count).astype(float),
        lambda x: np.full_like(x, -math.log(11)),
    ),
}


def independent(*laws):
    """Independent columns, one of each law, and the flags that a person would give."""
    def make(random):
        def rows(count):
            columns = [LAWS[law][0](random, count) for law in laws]
            return np.stack(columns, 1), sum(LAWS[law][1](x) for law, x in zip(laws, columns))
        return rows

    whole = ",".join(name for name, law in zip(NAMES, laws) if law == "integers")
    return make, ["--dequantize", whole] if whole else []


def narrow_modes(random, count):
    """Two normals of deviation 0.5 at -3 and 3, in equal shares."""
    x = 0.5 * random.normal(size=count) + 3.0 * (2 * random.integers(0, 2, count) - 1)
    # Half of a density that is twice that of the column in standard deviations.
    return x, np.logaddexp(normal(2 * x, 6), normal(2 * x, -6))


def one_column(random):
    def rows(count):
        x, log_density = narrow_modes(random, count)
        return x[:, None], log_density
    return rows


def moved_by_a_context(random):
    """These modes moved by 2 c, given the standard normal c."""
    def rows(count):
        x, log_density = narrow_modes(random, count)
        given = random.normal(size=count)
        return np.stack([x + 2 * given, given], 1), log_density
    return rows


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


# Of each table what makes it, and flags that a person would give.
TABLES = {
    **{law: independent(law, law) for law in LAWS},
    **{f"{one} and {other}": independent(one, other) for one, other in itertools.combinations(LAWS, 2)},
    "one column of two modes": (one_column, []),
    "two modes moved by a context": (moved_by_a_context, ["--context", "b"]),
    "four Gaussians in 8 dimensions": (four_gaussians, []),
    "two modes": (two_modes, []),
}


def write(path, x):
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(NAMES[: x.shape[1]])
        out.writerows([repr(float(value)) for value in row] for row in x)


def draw(folder, name, seed):
    """Writes train.csv and fresh.csv into `folder`; the table, the truth of the fresh rows, and flags of `train`."""
    make, flags = TABLES[name]
    rows = make(np.random.default_rng(seed))
    (train, _), (fresh, truth) = rows(ROWS), rows(FRESH)
    write(folder / "train.csv", train)
    write(folder / "fresh.csv", fresh)
    return rows, truth, [*flags, "--seed", str(seed), "--device", "cpu"]


def train(moonflow, folder, truth, flags):
    """What `train` says of the table in `folder`, the gap of the fit in nats, and its model."""
    model = str(folder / "run/model.safetensors")
    said, _ = run(moonflow, "train", str(folder / "train.csv"), "--out", str(folder / "run"), *flags)
    scored, _ = run(moonflow, "score", "--model", model, str(folder / "fresh.csv"), "--device", "cpu")
    return said, (truth - np.array([float(line) for line in scored.split()[1:]])).mean(), model


def fit(moonflow, name, seed, options):
    """Gap in nats, share on the right, share between modes and findings of the self-check, of the default fit."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        rows, truth, flags = draw(folder, name, seed)
        said, gap, model = train(moonflow, folder, truth, [*flags, *options])
        found = said.count("suspicious: ")
        shares = [getattr(rows, share, None) for share in ("right", "between")]
        if not any(shares):
            return gap, "", "", found
        drawn, _ = run(moonflow, "sample", "--model", model, "-n", str(SAMPLES), "--device", "cpu")
        samples = np.loadtxt(drawn.splitlines(), delimiter=",", skiprows=1)
        return gap, *(f"{share(samples):.5f}" if share else "" for share in shares), found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--moonflow", default="target/release/moonflow")
    parser.add_argument("--tables", type=lambda text: text.split(","), default=list(TABLES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed, of the table and of the fit")
    parser.add_argument("options", nargs="*", help="flags for moonflow train, after --")
    arguments = parser.parse_args()
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(["table", "seed", "gap", "right", "between", "suspicious"])
    for name in arguments.tables:
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            gap, *rest = fit(arguments.moonflow, name, seed, arguments.options)
            out.writerow([name, seed, f"{gap:.4f}", *rest])
            sys.stdout.flush()


if __name__ == "__main__":
    main()
