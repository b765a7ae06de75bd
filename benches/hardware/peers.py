"""Parts e and f: other people's software on the same jobs, on CUDA beside the GPU engine, and on the CPU by threads."""

import argparse
import os
import subprocess
import sys
import time

from common import PEERS, load, publish

import compare

# The jobs that the targets are about, then the others.
TASKS = "train:0,train:2,log_prob_large:0,sample_large:0,train:1,log_prob_large:2,sample_large:2"
# Peers in the order of worth, and the share of the time that is left for each group.
GROUPS = [
    (["pytorch-graphs", "jax-scan", "jax-step", "pytorch"], TASKS, 0.5),
    (["pytorch-compile", "pytorch-compile-graphs"], "train:0,train:2", 0.5),
    (["normflows", "zuko", "flowjax"], "train:0,log_prob_large:0,sample_large:0,train:2", 1.0),
]
LARGE = 1_048_576
# On the CPU, where there are no graphs; compilation takes longer than a rehearsal.
TOY_GROUPS = [
    (["jax-scan", "jax-step", "pytorch"], "train:0,train:2,log_prob_large:0,sample_large:0", 0.6),
    (["normflows", "zuko", "flowjax"], "train:0,log_prob_large:0", 1.0),
]
# Seconds before the end of the box in which results are gathered.
RESERVE = 3


def part_e(job):
    """Interleaved windows of moonflow and its peers, one task after the other."""
    result = {"runs": []}
    for peers, tasks, share in TOY_GROUPS if job.rehearse else GROUPS:
        budget = share * (job.left() - RESERVE)
        if budget < 10:
            result.setdefault("left_out", []).append(f"{', '.join(peers)}: no time was left")
            continue
        out = job.scratch / f"compare-{len(result['runs'])}"
        command = [sys.executable, PEERS / "compare.py", "--python", job.python, "--bin", job.bin]
        command += ["--out", out, "--peers", ",".join(peers), "--tasks", tasks]
        command += ["--budget", f"{budget:.0f}"]
        if job.rehearse:
            command += "--toy --device cpu --engine gpu --threads 2 --rounds 2".split()
            command += "--seconds 0.1 --calibration 0.05 --pause 0.05 --timeout 60".split()
        else:
            command += ["--device", "cuda", "--large", str(LARGE), "--rounds", "5", "--seconds", "0.5"]
            command += ["--calibration", "0.3", "--pause", "0.05", "--timeout", "90"]
        result["runs"].append({"peers": peers})
        process = subprocess.Popen([str(word) for word in command], stdout=sys.stderr)
        while process.poll() is None and job.left() > RESERVE / 2:
            time.sleep(0.5)
            gather(job, result, out)
        process.kill()
        gather(job, result, out)
    return all(run.get("windows") for run in result["runs"])


def gather(job, result, out):
    """Takes over what a comparison has written so far, where there is more than before."""
    found = load(out / "compare.json")
    if found and len(found["windows"]) != len(result["runs"][-1].get("windows", [])):
        result["runs"][-1] |= found
        tasks = {window["task"] for run in result["runs"] for window in run.get("windows", [])}
        peers = {window["peer"] for run in result["runs"] for window in run.get("windows", [])}
        result["headline"] = f"{len(tasks)} jobs, {len(peers)} programs"
    publish(job, "e", result)


# Jobs on the CPU, by name of the peer: its command, and its forms of training and of evaluation.
CPU_PEERS = {
    "moonflow": (compare.MOONFLOW + ["cpu"], [None], [None]),
    "jax": (compare.python("jax"), ["scan", "step"], ["step"]),
    "pytorch": (compare.python("pytorch"), ["eager"], ["eager"]),
}
CPU_TASKS = [("train", 0), ("log_prob_large", 0), ("train", 2), ("train", 1)]


def part_f(job):
    """The CPU engine and its peers by number of threads."""
    most = compare.CORES
    counts = [count for count in (1, 2, 4, 8, 16) if count <= most] or [1]
    result = {"processor": compare.machine(), "rates": [], "left_out": []}
    if job.rehearse:
        compare.SHAPES[:] = compare.TOY_SHAPES
    with open(os.devnull, "w", encoding="ascii") as log:
        # All cores and one first: what lies between is of less worth.
        for threads in sorted(counts, key=lambda count: (count not in (1, counts[-1]), -count)):
            measure_on_cpu(job, result, threads, log)
    best = [rate for rate in result["rates"] if rate["peer"] == "moonflow" and rate["task"][0] == "train"]
    return len(best) > 0


def measure_on_cpu(job, result, threads, log):
    """A window of each peer for each job, in turn, with so many threads."""
    options = argparse.Namespace(
        python=job.python,
        bin=str(job.bin),
        device="cpu",
        tf32=False,
        log=log,
        timeout=60,
        deadline=job.deadline - 1,
    )
    seconds = 0.1 if job.rehearse else 0.5
    workers = {}
    try:
        for name, index in CPU_TASKS[:2] if job.rehearse else CPU_TASKS:
            shape = compare.SHAPES[index]
            steps = compare.TOY_STEPS[index] if job.rehearse else compare.STEPS["cpu"][index]
            kind = name.removesuffix("_large")
            rows = compare.TOY_LARGE if job.rehearse else compare.LARGE
            asked = {"job": kind, **shape, **({"steps": steps} if kind == "train" else {"rows": rows})}
            for peer, (command, train_forms, forms) in CPU_PEERS.items():
                for form in train_forms if kind == "train" else forms:
                    choice = {"form": form, "nets": "separate", "adam": "flat"} if form else {}
                    entry = {"task": [name, index], "peer": peer, "form": form, "threads": threads}
                    try:
                        if job.left() < 2:
                            raise compare.Broken("no time was left")
                        if peer not in workers or workers[peer].process.poll() is not None:
                            workers[peer] = compare.Worker(command, threads, options)
                        job_line = {**asked, **choice, "seconds": seconds}
                        answer = workers[peer].ask(job_line, compare.patience(options))
                        result["rates"].append({**entry, "rate": answer["rate"]})
                    except compare.Broken as error:
                        result["left_out"].append({**entry, "problem": str(error)})
                    tell(job, result)
    finally:
        for worker in workers.values():
            worker.end()


def tell(job, result):
    counts = sorted({rate["threads"] for rate in result["rates"]})
    result["headline"] = f"{len(result['rates'])} rates, by {', '.join(map(str, counts))} threads"
    publish(job, "f", result)
