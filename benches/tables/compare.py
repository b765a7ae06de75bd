"""Held-out log-likelihood of moonflow against a Gaussian and Gaussian mixtures, on scikit-learn's bundled tables.

    python benches/tables/compare.py --moonflow target/release/moonflow

Each table is split at random, 80 to 20 per cent, `--splits` times. Every model sees the same training rows and is
scored on the same others, in nats per row and the table's own units. Unless its options say otherwise, moonflow takes
a tenth of its training rows for validation; the others use all of them. Integers are dequantised by uniform noise, for
every model alike; moonflow is told their range, a mixture has no use for it. Columns that are constant are left out.

In the tables without integers (all but digits) a column of at most 16 different values, such as the sex in diabetes,
has no density either: whoever puts the narrowest spike there would win. Every model sees such a column with uniform
noise as wide as the least gap between two of its values, in training and test rows alike.

`--validation` leaves the test rows alone and scores a fifth of the training rows, which the other four fifths are then
the training rows for: options are chosen there.

Wants numpy and scikit-learn.
"""

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np
from sklearn import datasets
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler

from program import run

# What loads a table, and of whole numbers the ends between which they lie with their noise.
TABLES = {
    "breast cancer": (datasets.load_breast_cancer, None),
    "diabetes": (datasets.load_diabetes, None),
    "digits": (datasets.load_digits, (0, 17)),
    "wine": (datasets.load_wine, None),
}

# Different values up to which a column is seen with noise.
LEVELS = 16


def split(table, ends, seed, validation):
    """Training and test rows of the split `seed`; with `validation` both are parts of the training rows."""
    random = np.random.default_rng(seed)
    rows = table + random.random(table.shape) if ends else table.copy()
    order = random.permutation(len(rows))
    if not ends:
        for column in rows.T:
            values = np.unique(column)
            if 1 < len(values) <= LEVELS:
                column += (random.random(len(column)) - 0.5) * np.diff(values).min()
    rows = rows[order][:, table.std(axis=0) > 0]
    cut = len(rows) * 4 // 5
    if not validation:
        return rows[:cut], rows[cut:]
    rows = rows[:cut]
    return rows[cut // 5 :], rows[: cut // 5]


def write(path, rows):
    """Writes `rows` [N, D] as CSV with a header."""
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(f"c{i}" for i in range(rows.shape[1]))
        out.writerows([repr(float(value)) for value in row] for row in rows)


def mixture(train, test, components):
    """log p of `test` under the mixture whose ridge does best on a tenth of the training rows."""
    scaler = StandardScaler().fit(train)
    x, unit = scaler.transform(train), -np.log(scaler.scale_).sum()
    cut = len(x) // 10
    best = None
    for ridge in (1e-6, 1e-4, 1e-3, 1e-2, 1e-1):
        model = GaussianMixture(components, reg_covar=ridge, random_state=0)
        held = model.fit(x[cut:]).score(x[:cut])
        if best is None or held > best[0]:
            best = held, ridge
    model = GaussianMixture(components, reg_covar=best[1], random_state=0).fit(x)
    return model.score_samples(scaler.transform(test)) + unit


def flow(moonflow, train, test, options):
    """log p of `test` under a flow that moonflow trains on `train`."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write(folder / "train.csv", train)
        write(folder / "test.csv", test)
        train_flags = ["--device", "cpu", "--out", str(folder / "run"), *options]
        run(moonflow, "train", str(folder / "train.csv"), *train_flags)
        score_flags = ["--model", str(folder / "run/model.safetensors"), "--device", "cpu"]
        scored = run(moonflow, "score", *score_flags, str(folder / "test.csv"))[0]
        return np.array([float(line) for line in scored.split()[1:]])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--moonflow", default="target/release/moonflow")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="seed of the first split")
    parser.add_argument("--tables", type=lambda text: text.split(","), default=list(TABLES))
    parser.add_argument("--validation", action="store_true", help="score a part of the training rows, no test rows")
    parser.add_argument("options", nargs="*", help="flags for moonflow train, after --")
    arguments = parser.parse_args()
    print("moonflow train", *arguments.options)
    print(f"every model sees columns of at most {LEVELS} different values with noise as wide as their least gap")
    print(f"{'table':14}{'rows':>6}{'D':>4}{'Gaussian':>20}{'10 Gaussians':>20}{'moonflow':>20}  best")
    for name in arguments.tables:
        load, ends = TABLES[name]
        table = load().data.astype(float)
        scores, lines = [], []
        for seed in range(arguments.first, arguments.first + arguments.splits):
            train, test = split(table, ends, seed, arguments.validation)
            options = [*arguments.options, "--seed", str(seed)]
            if ends:
                bounds = (f"c{i}={ends[0]}:{ends[1]}" for i in range(train.shape[1]))
                options += ["--bounds", ",".join(bounds)]
            models = [
                mixture(train, test, 1),
                mixture(train, test, 10),
                flow(arguments.moonflow, train, test, options),
            ]
            scores.append([model.mean() for model in models])
            cells = "".join(f"{model.mean():11.2f} {model.min():8.1f}" for model in models)
            share = np.mean(models[2] > np.maximum(models[0], models[1]))
            lines.append(f"  split {seed:2}, mean and lowest row{cells:>60}  moonflow ahead of both on {share:.0%}")
        means, spread = np.mean(scores, axis=0), np.std(scores, axis=0)
        best = ["Gaussian", "10 Gaussians", "moonflow"][int(np.argmax(means))]
        cells = "".join(f"{mean:12.2f} ± {error:5.2f}" for mean, error in zip(means, spread))
        print(f"{name:14}{len(table):6}{train.shape[1]:4}{cells}  {best}")
        print(*lines, sep="\n", flush=True)


if __name__ == "__main__":
    main()
