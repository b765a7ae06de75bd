"""Parts e and f: other people's software on the same jobs, on CUDA, and on the CPU by threads."""

import argparse
import os
import subprocess
import sys
import time

from common import PEERS, load, publish

import compare

SHORT = "train:0,log_prob_large:0,sample_large:0,train:2"
# Flows, peers and jobs in the order of worth, and the share of the time that is left for each group. What trains
# fastest scores in another form: its group comes after.
GROUPS = [
    ("affine", ["jax-scan", "pytorch-graphs"], "train:0,train:2,train:1", 0.4),
    ("affine", ["jax-step", "pytorch"], "log_prob_large:0,sample_large:0,log_prob_large:2", 0.35),
    ("spline", ["flowjax"], "train:0,log_prob_large:0,train:2", 0.5),
    ("joint", ["flowjax"], "train:0,train:2", 0.6),
    ("affine", ["pytorch-compile-graphs", "normflows", "zuko"], SHORT, 0.6),
    ("spline", ["zuko"], SHORT, 1.0),
]
LARGE = 1_048_576
# On the CPU, where there are no graphs; compilation takes longer than a rehearsal.
TOY_GROUPS = [
    ("affine", ["jax-scan", "jax-step", "pytorch"], SHORT, 0.6),
    ("affine", ["normflows", "zuko", "flowjax"], "train:0,log_prob_large:0", 0.6),
    ("spline", ["flowjax", "zuko"], "train:0", 1.0),
]
# Seconds before the end of the box in which results are gathered.
RESERVE = 3


def part_e(job):
    """Interleaved windows of moonflow and its peers, one task after the other."""
    result = {"runs": []}
    for flow, peers, tasks, share in TOY_GROUPS if job.rehearse else GROUPS:
        budget = share * (job.left() - RESERVE)
        if budget < 10:
            result.setdefault("left_out", []).append(f"{', '.join(peers)}: no time was left")
            continue
        out = job.scratch / f"compare-{len(result['runs'])}"
        command = [sys.executable, PEERS / "compare.py", "--python", job.python, "--bin", job.bin]
        command += ["--flow", flow, "--out", out, "--peers", ",".join(peers), "--tasks", tasks]
        command += ["--budget", f"{budget:.0f}"]
        if job.rehearse:
            command += "--toy --device cpu --engine gpu --threads 2 --rounds 2 --variants 1".split()
            command += "--seconds 0.1 --calibration 0.05 --pause 0.05 --timeout 60".split()
        else:
            command += [
                "--device",
                "cuda",
                "--large",
                str(LARGE),
                "--rounds",
                "3",
                "--seconds",
                "0.4",
            ]
            command += ["--calibration", "0.3", "--pause", "0.05", "--timeout", "90"]
        result["runs"].append({"flow": flow, "peers": peers})
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


# Programs on the CPU: command, and forms of training and of evaluation.
CPU_PEERS = {
    "moonflow": (compare.MOONFLOW + ["cpu"], [None], [None]),
    "jax": (compare.python("jax"), ["scan", "step"], ["step"]),
    "pytorch": (compare.python("pytorch"), ["eager"], ["eager"]),
}
CPU_TASKS = [("train", 0), ("log_prob_large", 0), ("train", 2), ("train", 1)]
TOY_CPU_TASKS = CPU_TASKS[:2]


def part_f(job):
    """The CPU engine and its peers by number of threads."""
    counts = [count for count in (1, 2, 4, 8, 16) if count <= compare.CORES] or [1]
    # One thread and all of them first: what lies between is of less worth.
    counts = sorted(counts, key=lambda count: (count not in (1, counts[-1]), -count))
    result = {"processor": compare.machine(), "rates": [], "left_out": []}
    if job.rehearse:
        compare.SHAPES[:] = compare.TOY_SHAPES
    with open(os.devnull, "w", encoding="ascii") as log:
        for threads in counts:
            with CpuWorkers(job, threads, log) as workers:
                for entry, asked in cpu_windows(job, threads):
                    rate, problem = workers.rate(entry["peer"], asked)
                    if problem:
                        result["left_out"].append({**entry, "problem": problem})
                    else:
                        result["rates"].append({**entry, "rate": rate})
                    tell(job, result)
    return any(rate["peer"] == "moonflow" for rate in result["rates"])


def cpu_windows(job, threads):
    """Windows of every program in turn: how each is noted, and what the worker is told."""
    for name, index in TOY_CPU_TASKS if job.rehearse else CPU_TASKS:
        asked = {"job": name.removesuffix("_large"), **compare.SHAPES[index]}
        if name == "train":
            asked["steps"] = (compare.TOY_STEPS if job.rehearse else compare.STEPS["cpu"])[index]
        else:
            asked["rows"] = compare.TOY_LARGE if job.rehearse else compare.LARGE
        asked["seconds"] = 0.1 if job.rehearse else 0.5
        for peer, (_, train_forms, forms) in CPU_PEERS.items():
            for form in train_forms if name == "train" else forms:
                choice = {"form": form, "nets": "separate", "adam": "flat"} if form else {}
                entry = {"task": [name, index], "peer": peer, "form": form, "threads": threads}
                yield entry, {**asked, **choice}


class CpuWorkers:
    """The programs' processes, each with so many threads, started when they are first asked."""

    def __init__(self, job, threads, log):
        self.job, self.threads, self.workers = job, threads, {}
        self.options = argparse.Namespace(
            python=job.python,
            bin=str(job.bin),
            device="cpu",
            tf32=False,
            log=log,
            timeout=60,
            deadline=job.deadline - 1,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for worker in self.workers.values():
            worker.end()

    def rate(self, peer, asked):
        """The rate of a window, or what went wrong."""
        if self.job.left() < 2:
            return None, "no time was left"
        try:
            worker = self.workers.get(peer)
            if worker is None or worker.process.poll() is not None:
                worker = compare.Worker(CPU_PEERS[peer][0], self.threads, self.options)
                self.workers[peer] = worker
            return worker.ask(asked, compare.patience(self.options))["rate"], None
        except compare.Broken as error:
            return None, str(error)


def tell(job, result):
    counts = sorted({rate["threads"] for rate in result["rates"]})
    result["headline"] = f"{len(result['rates'])} rates, by {', '.join(map(str, counts))} threads"
    publish(job, "f", result)
