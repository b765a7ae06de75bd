"""Splits of scikit-learn's own tables, with and without what they predict, for splits.py.

    python benches/tables/small.py OUT --splits 5 && python benches/tables/splits.py OUT/*/* > small.csv

Writes OUT/TABLE/SEED/train.csv and test.csv, one row in ten held out at random. A column in which many rows share a value
is spread over its grid, so that densities stay finite and every model sees the same noise. `TABLE-class` has the class as
text besides, `diabetes-target` the number. Wants numpy and scikit-learn.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from sklearn import datasets

TABLES = ["iris", "wine", "breast_cancer", "diabetes"]


def spread(x, random):
    """Columns of fewer different values than 0.8 of the rows, moved by up to half a step of their grid."""
    for column in x.T:
        values = np.unique(column)
        if len(values) < 0.8 * len(x):
            column += (random.random(len(x)) - 0.5) * np.median(np.diff(values))


def write(path, names, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([names, *rows])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="seed of the first split")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    for name in TABLES:
        table = getattr(datasets, f"load_{name}")()
        names = [feature.replace(" (cm)", "").replace(" ", "_") for feature in table.feature_names]
        classes = getattr(table, "target_names", None)
        for seed in range(arguments.first, arguments.first + arguments.splits):
            random = np.random.default_rng(seed)
            x, target = table.data.copy(), table.target.astype(float)[:, None]
            spread(x, random)
            spread(target, random)
            target = target[:, 0] if classes is None else classes[table.target]
            order = random.permutation(len(x))
            cut = len(x) // 10
            for part, rows in (("test", order[:cut]), ("train", order[cut:])):
                numbers = [[f"{value:.9g}" for value in x[row]] for row in rows]
                write(arguments.out / name / str(seed) / f"{part}.csv", names, numbers)
                last = "target" if classes is None else "class"
                predicted = [[*cells, target[row]] for cells, row in zip(numbers, rows)]
                write(arguments.out / f"{name}-{last}" / str(seed) / f"{part}.csv", [*names, last], predicted)


if __name__ == "__main__":
    main()
