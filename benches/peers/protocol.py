"""What the Python workers share: the line protocol, and the model's masks, parameters and rows.

A worker reads one JSON job a line, prepares it once (compilation and warm-up are never timed), runs
it for about as many seconds as the job says and answers with one JSON line.
"""

import argparse
import json
import math
import os
import sys
import time
import traceback

import numpy as np

CLIP_NORM = 5.0
LEARNING_RATE = 1e-3
WARM_UP_RUNS = 3


def arguments(description):
    """The flags that every Python worker takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--tf32", action="store_true", help="allow TF32 products on CUDA")
    parser.add_argument("--whole", action="store_true", help="run the whole-process job and exit")
    return parser.parse_args()


def serve(worker, versions):
    """Answers jobs from standard input until it ends.

    `worker.prepare(job)` returns a function that does one run and gives a handle, and what a run
    counts for; `worker.wait(handle)` returns when that run is done.
    """
    # Whatever a library prints must not end up between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    answers.write(json.dumps({"versions": versions, "device": worker.device_name()}) + "\n")
    prepared = {}
    for line in sys.stdin:
        job = json.loads(line)
        if job["job"] == "quit":
            break
        try:
            answer = worker.check(job) if job["job"] == "check" else measure(worker, job, prepared)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        answers.write(json.dumps(answer) + "\n")


def measure(worker, job, prepared):
    """Runs a job for `job["seconds"]`, at most one run ahead of the device."""
    seconds = job.pop("seconds")
    key = json.dumps(job, sort_keys=True)
    setup = time.perf_counter()
    if key not in prepared:
        run, amount = worker.prepare(job)
        for _ in range(WARM_UP_RUNS):
            worker.wait(run())
        prepared[key] = run, amount
    run, amount = prepared[key]

    start = time.perf_counter()
    runs, pending, elapsed = 0, None, 0.0
    while elapsed < seconds:
        handle = run()
        if pending is not None:
            worker.wait(pending)
        pending, runs = handle, runs + 1
        elapsed = time.perf_counter() - start
    worker.wait(pending)
    elapsed = time.perf_counter() - start
    return {
        "rate": runs * amount / elapsed,
        "runs": runs,
        "elapsed": elapsed,
        "setup": start - setup,
    }


def masks(job):
    """[L, D], 1 where a layer keeps a feature."""
    layer, feature = np.ogrid[: job["layers"], : job["features"]]
    return ((layer + feature) % 2 == 0).astype(np.float32)


def chirp(start, count):
    """`count` values of the sequence that parameters and checked rows are taken from everywhere."""
    counter = np.arange(start + 1, start + count + 1, dtype=np.float64)
    return np.sin(0.7 * counter * counter)


def numbers(job):
    """How many numbers a network yields for a feature."""
    return {"affine": 1, "joint": 2}.get(job.get("flow", "affine")) or 3 * job["bins"] - 1


def networks(job, zero_last=False):
    """Parameters [layer][network][linear] of (weight [out, in], bias [out]): scale and translate,
    or one joint network.

    Value k in moonflow's flat order is chirp(k) / √inputs, with D inputs for a bias; an untrained
    flow's last layers are zero.
    """
    flow = job.get("flow", "affine")
    # A residual network has one block, of two linear layers.
    hidden = [job["hidden"]] * (3 if flow == "residual-spline" else 2)
    widths = [job["features"], *hidden, job["features"] * numbers(job)]
    index = 0

    def values(shape, inputs):
        nonlocal index
        flat = chirp(index, math.prod(shape)) / math.sqrt(inputs)
        index += flat.size
        return flat.reshape(shape).astype(np.float32)

    def network():
        linears = []
        for inputs, outputs in zip(widths, widths[1:]):
            linears.append((values((outputs, inputs), inputs), values((outputs,), job["features"])))
        if zero_last:
            linears[-1] = tuple(np.zeros_like(array) for array in linears[-1])
        return linears

    count = 2 if flow == "affine" else 1
    return [[network() for _ in range(count)] for _ in range(job["layers"])]


# What softplus takes to a slope of 1, with the least slope of 0.001: moonflow adds it to its numbers.
UNIT_SLOPE = math.log(math.expm1(1 - 1e-3))


def spline_networks(job):
    """Parameters [layer][linear] of spline couplings in the manner of Durkan et al.: networks take
    the kept features alone and yield numbers of the others, with slopes of 1 for UNIT_SLOPE."""
    bins, wanted = job["bins"], []
    for kept, (network,) in zip(masks(job) > 0, networks(job)):
        (weight, bias), *others, (last_weight, last_bias) = network
        last_bias = last_bias.reshape(job["features"], -1).copy()
        last_bias[:, 2 * bins :] += UNIT_SLOPE
        moved = np.repeat(~kept, numbers(job))
        last = last_weight[moved], last_bias.ravel()[moved]
        wanted.append([(weight[:, kept], bias), *others, last])
    return wanted


def check_rows(job):
    """The rows [B, D] of a check."""
    rows = job["spread"] * chirp(0, job["batch"] * job["features"])
    return rows.astype(np.float32).reshape(job["batch"], job["features"])


def normal_rows(count, features):
    """Standard normal rows [count, features]."""
    generator = np.random.default_rng(2)
    return generator.standard_normal((count, features), dtype=np.float32)


# The whole-process job: what `moonflow train moons` does, without its pictures and files.
WHOLE = {"features": 2, "layers": 8, "hidden": 64, "batch": 256}
WHOLE_EPOCHS = 60
WHOLE_LEARNING_RATE = 5e-3
WHOLE_ROWS, WHOLE_VALIDATION, WHOLE_HELD_OUT = 10_000, 1_000, 20_000


def moons(count, generator, noise=0.05):
    """scikit-learn's two moons, without the half second that importing it takes."""
    angle = generator.uniform(0, np.pi, count)
    upper = generator.integers(0, 2, count) == 0
    x = np.where(upper, np.cos(angle), 1 - np.cos(angle))
    y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle))
    return np.stack([x, y], 1) + generator.normal(0, noise, (count, 2))


def whole_data():
    """Standardised training, validation and held-out rows, and Σ ln std of the standardiser."""
    generator = np.random.default_rng(0)
    rows = moons(WHOLE_ROWS, generator)
    train, validation = rows[WHOLE_VALIDATION:], rows[:WHOLE_VALIDATION]
    mean, std = train.mean(0), train.std(0)
    held_out = moons(WHOLE_HELD_OUT, generator)
    standardised = [
        ((part - mean) / std).astype(np.float32) for part in (train, validation, held_out)
    ]
    return *standardised, float(np.log(std).sum())
