"""Held-out log-likelihood of the default fit beside Gaussian mixtures, in nats a row, as CSV on standard output.

    python benches/tables/splits.py --moonflow target/release/moonflow FOLDER ... > splits.csv
    python benches/tables/splits.py --moonflow target/release/moonflow --table TABLE.csv --splits 5 > raw.csv

A FOLDER holds train.csv and test.csv. `--table` splits a table of numbers as it stands, one row in ten held out at
random. `seconds` is the processor time of the training, over all threads. Mixtures have the ridge 1e-4 in standard
deviations and see all training rows. `suspicious` and `notes` are what the training says. Wants numpy and scikit-learn.
"""

import argparse
import csv
import resource
import shlex
import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.mixture import GaussianMixture

from program import run


def read(path):
    with open(path) as file:
        header = next(csv.reader(file))
        return header, np.loadtxt(file, delimiter=",", ndmin=2)


def split(table, seed, folder):
    """Writes train.csv and test.csv of the split `seed` into `folder`, each value as it is in the table."""
    header, *lines = Path(table).read_text().splitlines()
    order = np.random.default_rng(seed).permutation(len(lines))
    cut = len(lines) // 10
    for name, rows in (("test", order[:cut]), ("train", order[cut:])):
        (folder / f"{name}.csv").write_text("\n".join([header, *(lines[row] for row in rows)]) + "\n")


def mixture(folder, components):
    """log p of the test rows under a mixture."""
    train, test = (read(folder / f"{name}.csv")[1] for name in ("train", "test"))
    mean, std = train.mean(0), train.std(0)
    model = GaussianMixture(components, reg_covar=1e-4, random_state=0, max_iter=300).fit((train - mean) / std)
    return model.score_samples((test - mean) / std) - np.log(std).sum()


def processor_time():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def flow(moonflow, folder, options):
    """log p of the test rows under the fit, the seconds of its training, and what it says of the columns."""
    with tempfile.TemporaryDirectory() as out:
        before = processor_time()
        said, notes = run(moonflow, "train", str(folder / "train.csv"), "--device", "cpu", "--out", out, *options)
        seconds = processor_time() - before
        model = str(Path(out) / "model.safetensors")
        scored, _ = run(moonflow, "score", "--model", model, str(folder / "test.csv"), "--device", "cpu")
    scores = np.array([float(line.rsplit(",")[-1]) for line in scored.split()[1:]])
    suspicious = [line.strip() for line in said.splitlines() if "suspicious: " in line]
    notes = [line for line in notes.splitlines() if line.startswith(("note:", "warning:"))]
    return scores, seconds, " / ".join(suspicious), " / ".join(notes)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--moonflow", default="target/release/moonflow")
    parser.add_argument("--table", help="a table to split as it stands")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="seed of the first split")
    parser.add_argument("--flags", type=shlex.split, default=[], help="flags for moonflow train")
    parser.add_argument("folders", nargs="*", help="folders with train.csv and test.csv")
    arguments = parser.parse_args()
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(
        ["split", "mean", "error", "lowest", "gaussian", "gaussian_lowest", "ten", "ten_lowest", "seconds"]
        + ["suspicious", "notes"]
    )

    def judge(name, folder):
        scores, seconds, suspicious, notes = flow(arguments.moonflow, folder, arguments.flags)
        peers = [mixture(folder, components) for components in (1, 10)]
        cells = [cell for peer in peers for cell in (f"{peer.mean():.4f}", f"{peer.min():.2f}")]
        error = scores.std() / len(scores) ** 0.5
        out.writerow(
            [name, f"{scores.mean():.4f}", f"{error:.4f}", f"{scores.min():.2f}", *cells, f"{seconds:.1f}"]
            + [suspicious, notes]
        )
        sys.stdout.flush()

    for folder in arguments.folders:
        judge("/".join(Path(folder).parts[-2:]), Path(folder))
    if arguments.table:
        for seed in range(arguments.first, arguments.first + arguments.splits):
            with tempfile.TemporaryDirectory() as folder:
                split(arguments.table, seed, Path(folder))
                judge(f"{Path(arguments.table).stem}/{seed}", Path(folder))


if __name__ == "__main__":
    main()
