"""Writes the tables of this folder from scikit-learn's bundled data: `python export.py`. Wants scikit-learn."""

import csv
from pathlib import Path

from sklearn import datasets


def write(name, bunch):
    """The features of `bunch`, and nothing else, as CSV with a header."""
    with open(Path(__file__).parent / name, "w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(column.replace(" ", "_") for column in bunch.feature_names)
        out.writerows([f"{value:g}" if float(f"{value:g}") == value else repr(float(value)) for value in row] for row in bunch.data)


if __name__ == "__main__":
    write("breast_cancer.csv", datasets.load_breast_cancer())
    write("wine.csv", datasets.load_wine())
