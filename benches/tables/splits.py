"""Held-out log-likelihood of the default fit beside simple densities, in nats a row, as CSV on standard output.

    python benches/tables/splits.py --moonflow target/release/moonflow FOLDER ... > splits.csv
    python benches/tables/splits.py --moonflow target/release/moonflow --table TABLE.csv --splits 5 > raw.csv

A FOLDER holds train.csv and test.csv. `--table` splits a table as it stands, one row in ten held out at random.
`seconds` is the processor time of the training, over all threads. Beside it stand a Gaussian and ten of them, with the
ridge 1e-4 in standard deviations, and a vine copula behind kernel margins; they see all training rows. Where a column
is text, they are fitted to the rows of each class, whose share counts. `suspicious` and `notes` are what the training
says. Wants numpy, scikit-learn and pyvinecopulib.
"""

import argparse
import csv
import resource
import shlex
import sys
import tempfile
from pathlib import Path

import numpy as np
from pyvinecopulib import BicopFamily, FitControlsVinecop, Kde1d, Vinecop
from sklearn.mixture import GaussianMixture

from program import run


def read(path):
    """Numbers `[N, D]` of the table at `path`, and of each row what its columns of text say."""
    with open(path, newline="") as file:
        _, *lines = csv.reader(file)
    columns = list(zip(*lines))
    numbers = [column for column in columns if is_number(column[0])]
    texts = [column for column in columns if not is_number(column[0])]
    return np.array(numbers, float).T, list(zip(*texts)) if texts else [()] * len(lines)


def is_number(cell):
    try:
        float(cell)
    except ValueError:
        return False
    return True


def split(table, seed, folder):
    """Writes train.csv and test.csv of the split `seed` into `folder`, each value as it is in the table."""
    header, *lines = Path(table).read_text().splitlines()
    order = np.random.default_rng(seed).permutation(len(lines))
    cut = len(lines) // 10
    for name, rows in (("test", order[:cut]), ("train", order[cut:])):
        (folder / f"{name}.csv").write_text("\n".join([header, *(lines[row] for row in rows)]) + "\n")


def mixture(train, test, components):
    """log p of the test rows under a mixture."""
    model = GaussianMixture(min(components, len(train)), reg_covar=1e-4, random_state=0, max_iter=300).fit(train)
    return model.score_samples(test)


def vine(train, test):
    """log p of the test rows under a vine of nonparametric pair copulas behind kernel margins."""
    seen, new, log_density = np.empty_like(train), np.empty_like(test), np.zeros(len(test))
    for j in range(train.shape[1]):
        margin = Kde1d()
        margin.fit(train[:, j])
        seen[:, j], new[:, j] = margin.cdf(train[:, j]), margin.cdf(test[:, j])
        log_density += np.log(np.maximum(margin.pdf(test[:, j]), 1e-300))
    controls = FitControlsVinecop(family_set=[BicopFamily.indep, BicopFamily.tll])
    seen, new = (np.clip(places, 1e-10, 1 - 1e-10) for places in (seen, new))
    return log_density + np.log(np.maximum(Vinecop.from_data(seen, controls=controls).pdf(new), 1e-300))


PEERS = {
    "gaussian": lambda train, test: mixture(train, test, 1),
    "ten": lambda train, test: mixture(train, test, 10),
    "vine": vine,
}


def peers(folder):
    """log p of the test rows under each of PEERS, class by class."""
    (train, classes), (test, new_classes) = (read(folder / f"{name}.csv") for name in ("train", "test"))
    mean, std = train.mean(0), train.std(0)
    train, test = (train - mean) / std, (test - mean) / std
    scores = {name: np.full(len(test), -np.inf) for name in PEERS}
    for one in set(classes):
        rows, new = (np.array([row == one for row in rows]) for rows in (classes, new_classes))
        for name, density in PEERS.items():
            if new.any():
                scores[name][new] = density(train[rows], test[new]) + np.log(rows.mean()) - np.log(std).sum()
    return scores


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
        ["split", "mean", "error", "lowest"]
        + [column for peer in PEERS for column in (peer, f"{peer}_lowest")]
        + ["seconds", "suspicious", "notes"]
    )

    def judge(name, folder):
        scores, seconds, suspicious, notes = flow(arguments.moonflow, folder, arguments.flags)
        cells = [cell for peer in peers(folder).values() for cell in (f"{peer.mean():.4f}", f"{peer.min():.2f}")]
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
