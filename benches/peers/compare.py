#!/usr/bin/env python3
"""Times moonflow beside its peers on the same jobs, in interleaved windows of one run.

Every peer is a worker process that stays alive and idle while another runs. A calibration picks
each peer's best variant for each job and shape; then each round gives every peer one window for
each, and the table shows medians over rounds of the rates and of the ratios within a round.
"""

import argparse
import collections
import datetime
import itertools
import json
import os
import pathlib
import platform
import re
import select
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()

SHAPES = [
    {"features": 2, "layers": 4, "hidden": 64, "batch": 256},
    {"features": 8, "layers": 8, "hidden": 128, "batch": 512},
    {"features": 32, "layers": 8, "hidden": 256, "batch": 1024},
]
# Steps in an epoch, by shape: an epoch is the least that a window can hold.
STEPS = {"cpu": [64, 16, 8], "adapter": [8, 1, 1], "cuda": [64, 64, 64]}
# Rows of the large jobs; --large has others.
LARGE = 65_536
# What is learnt, and of what its splines consist.
FLOWS = ["affine", "joint", "spline", "residual-spline"]
FLOW = {"flow": "affine", "bins": 8, "tail_bound": 4.0}
# Greatest value in the rows of a check: splines are also checked beyond their tails.
SPREADS = {"affine": 1.5, "joint": 1.5, "spline": 4.5, "residual-spline": 4.5}
# What --toy takes in their places, to see that all runs. The last is too wide for the fused plan.
TOY_SHAPES = [
    {"features": 2, "layers": 2, "hidden": 8, "batch": 32},
    {"features": 3, "layers": 2, "hidden": 16, "batch": 32},
    {"features": 4, "layers": 2, "hidden": 136, "batch": 16},
]
TOY_STEPS = [4, 4, 4]
TOY_LARGE = 1024
JOBS = ["train", "log_prob", "sample", "log_prob_large", "sample_large", "process"]
UNITS = {"train": "steps/s", "process": "s"}
TOLERANCE = 1e-4
# For gradient norms: those of steep splines differ by more between nflows and normflows already,
# and between single and double precision, of the same code.
GRADIENT_TOLERANCES = {"residual-spline": 2e-3}
# Share of a task's time under a budget after which no further variant is tried.
CALIBRATION_SHARE = 0.6

# A worker's command, by file; {device}, {threads} are filled in.
PYTHON = ["{python}", "{here}/NAME_peer.py", "--device", "{device}", "--threads", "{threads}"]
MOONFLOW = ["{bin}/moonflow-worker", "--threads", "{threads}", "--device"]
BURN = ["{bin}/burn-worker", "--device"]
NETS = {"nets": ["separate", "stacked"]}


def python(name):
    return [part.replace("NAME", name) for part in PYTHON]


def peers(device, engine, flow="affine"):
    """By name: command, choices left to calibration, and what is other than in moonflow's model:
    a set of density, masks and widths, or None where that is not compared."""
    own = {"moonflow": (MOONFLOW + [engine], {}, set())}
    compiled = {"form": ["eager", "compile"]}
    # Its splines select rows by value: torch.compile compiles them anew for most batches.
    eager = {"form": ["eager"]}
    nflows = (python("nflows"), eager, {"density"} if flow == "joint" else set())
    zuko = (python("zuko"), compiled, {"density"})
    passes = (python("zuko"), {**compiled, "model": ["passes"]}, {"density", "masks", "widths"})
    flowjax = lambda *others: (python("flowjax"), {"form": ["step", "scan"]}, {"density", *others})
    normflows = (python("normflows"), compiled if flow == "affine" else eager, set())
    others = {
        "joint": {"nflows": nflows, "zuko": zuko, "flowjax": flowjax("masks")},
        "spline": {
            "nflows": nflows,
            "zuko": zuko,
            "zuko-nsf": passes,
            "flowjax": flowjax("masks", "widths"),
        },
        "residual-spline": {"nflows": nflows, "normflows": normflows},
    }
    if flow in others:
        return own if device == "adapter" else {**own, **others[flow]}
    torch = lambda form: (python("pytorch"), {"form": [form], **NETS}, set())
    jax = lambda form: (python("jax"), {"form": [form], **NETS, "adam": ["tree", "flat"]}, set())
    table = {
        **own,
        "pytorch": torch("eager"),
        "pytorch-compile": torch("compile"),
        "pytorch-graphs": torch("graphs"),
        "pytorch-compile-graphs": torch("compile-graphs"),
        "jax-step": jax("step"),
        "jax-scan": jax("scan"),
        "normflows": normflows,
        "zuko": (*zuko[:2], None),
        "flowjax": (*flowjax()[:2], None),
        "burn-flex": (BURN + ["flex"], NETS, set()),
        "burn-ndarray": (BURN + ["ndarray"], NETS, set()),
        "burn-wgpu": (BURN + ["wgpu"], NETS, set()),
        "burn-vulkan": (BURN + ["vulkan"], NETS, set()),
    }
    wanted = {
        "cpu": lambda name: "graphs" not in name and name not in ("burn-wgpu", "burn-vulkan"),
        "cuda": lambda name: name not in ("burn-flex", "burn-ndarray"),
        "adapter": lambda name: name in ("moonflow", "burn-wgpu", "burn-vulkan"),
    }[device]
    return {name: peer for name, peer in table.items() if wanted(name)}


# Peers whose form is one of training: their scoring and sampling would be another's once more.
TRAIN_ONLY = {"jax-scan", "pytorch-graphs", "pytorch-compile-graphs"}


class Broken(Exception):
    """A worker that ended, refused a job or did not answer in time."""


class Worker:
    """A peer's process with a number of threads."""

    def __init__(self, command, threads, options):
        fields = {
            "python": options.python,
            "here": HERE,
            "bin": options.bin,
            "device": options.device,
            "threads": threads,
        }
        command = [part.format(**fields) for part in command]
        if options.tf32 and command[0] == options.python:
            command.append("--tf32")
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=options.log,
                env=environment(threads),
                bufsize=0,
            )
        except OSError as error:
            raise Broken(f"{command[0]} cannot be started: {error.strerror}") from None
        self.buffer = b""
        self.hello = self.answer(patience(options))

    def answer(self, timeout):
        deadline = time.monotonic() + timeout
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                self.end()
                raise Broken(f"no answer within {timeout:.0f} s")
            received = os.read(self.process.stdout.fileno(), 1 << 16)
            if not received:
                raise Broken(f"ended with status {self.process.wait()}; see the log")
            self.buffer += received
        line, self.buffer = self.buffer.split(b"\n", 1)
        answer = json.loads(line)
        if "error" in answer:
            raise Broken(answer["error"])
        return answer

    def ask(self, job, timeout):
        try:
            self.process.stdin.write(json.dumps(job).encode() + b"\n")
        except OSError:
            raise Broken("ended; see the log") from None
        return self.answer(timeout)

    def cpu_seconds(self):
        """Processor time so far, where /proc tells."""
        try:
            stat = (
                pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            )
            return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
        except OSError:
            return 0.0

    def end(self):
        self.process.kill()
        self.process.wait()


def environment(threads):
    """Thread counts for every library that reads them from here.

    Waiting threads keep their libraries' own policy: they sleep within milliseconds, and a passive
    policy would slow down the windows of the peer itself.
    """
    names = ["OMP", "MKL", "OPENBLAS", "RAYON", "MATMUL"]
    counts = {f"{name}_NUM_THREADS": str(threads) for name in names}
    return {
        **os.environ,
        **counts,
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def patience(options):
    """Seconds that an answer may take: as usual, or what is left of the budget."""
    return max(0.0, min(options.timeout, options.deadline - time.monotonic()))


class Comparison:
    def __init__(self, options):
        self.options = options
        table = peers(options.device, options.engine, options.flow)
        unknown = set(options.peers or []) - set(table)
        if unknown:
            sys.exit(
                f"no such peers of {options.flow} on {options.device}: "
                f"{', '.join(sorted(unknown))}; "
                f"there are {', '.join(table)}"
            )
        self.peers = {
            name: peer
            for name, peer in table.items()
            if not options.peers or name in options.peers or name == "moonflow"
        }
        self.workers, self.broken, self.hellos = {}, {}, {}
        # The busiest idle worker during a window, in cores.
        self.idle = 0.0
        # No window begins later.
        self.until = options.deadline

    def worker(self, name, threads):
        """The process of a peer; peers with the same command share it."""
        command = self.peers[name][0]
        key = (tuple(command), threads)
        if key in self.workers and self.workers[key].process.poll() is not None:
            # What ended it, a form that compiles for too long perhaps, must not cost the others.
            del self.workers[key]
        if key not in self.workers:
            self.workers[key] = Worker(command, threads, self.options)
            self.hellos[" ".join(map(str, command))] = self.workers[key].hello
        return self.workers[key]

    def is_over(self):
        """Whether there is no time for another window."""
        window = self.options.pause + max(self.options.seconds, self.options.calibration)
        return time.monotonic() + window >= min(self.until, self.options.deadline)

    def window(self, name, variant, job, seconds):
        worker = self.worker(name, variant["threads"])
        # Threads of the last peer come to rest.
        time.sleep(self.options.pause)
        job = {**job, **{key: value for key, value in variant.items() if key != "threads"}}
        others = [other for other in self.workers.values() if other is not worker]
        before, start = [other.cpu_seconds() for other in others], time.monotonic()
        own = worker.cpu_seconds()
        answer = worker.ask({**job, "seconds": seconds}, patience(self.options))
        elapsed = time.monotonic() - start
        answer["cores"] = round((worker.cpu_seconds() - own) / elapsed, 2)
        for other, spent in zip(others, before):
            if elapsed > 0.4:
                self.idle = max(self.idle, (other.cpu_seconds() - spent) / elapsed)
        return answer

    def variants(self, name, job):
        """Every variant of a peer for a job."""
        choices = {"threads": self.options.threads, **self.peers[name][1]}
        if job["job"] != "train":
            choices.pop("adam", None)
            if "scan" in choices.get("form", []):
                choices["form"] = ["step"]
        table = [dict(zip(choices, values)) for values in itertools.product(*choices.values())]
        return table[: self.options.variants]

    def calibrate(self, tasks):
        """The best variant of each peer for each task."""
        best = {}
        for task, job in tasks.items():
            rates = {
                name: [] for name in self.peers if task[0] == "train" or name not in TRAIN_ONLY
            }
            # The first variant of each, then the second: where time is short, no peer goes without.
            for variants in itertools.zip_longest(*(self.variants(name, job) for name in rates)):
                for name, variant in zip(rates, variants):
                    if variant is None or self.is_over():
                        continue
                    try:
                        answer = self.window(name, variant, job, self.options.calibration)
                        rates[name].append((answer["rate"], variant))
                    except Broken as error:
                        self.report(name, task, variant, error)
            for name, found in rates.items():
                if found:
                    found.sort(key=lambda rate: -rate[0])
                    best[task, name] = found[0][1]
                    listed = ", ".join(f"{describe(v)} {rate:.4g}" for rate, v in found)
                    print(f"calibration  {label(task)}  {name}: {listed}", flush=True)
        used = {
            (tuple(self.peers[name][0]), variant["threads"]) for (_, name), variant in best.items()
        }
        for key in list(self.workers):
            # Under a budget the tasks that come later want them again.
            if key not in used and not self.options.budget:
                self.workers.pop(key).end()
        return best

    def report(self, name, task, variant, error):
        print(f"left out     {label(task)}  {name} ({describe(variant)}): {error}", flush=True)
        self.broken[f"{name} {label(task)} {describe(variant)}"] = str(error)

    def measure(self, tasks, best):
        """Rounds of windows, every peer once a round for each task, in an order that rotates."""
        windows = []
        for number in range(self.options.rounds):
            for task, job in tasks.items():
                names = [name for name in self.peers if (task, name) in best]
                turn = number % max(1, len(names))
                for name in names[turn:] + names[:turn]:
                    if self.is_over():
                        return windows
                    variant = best[task, name]
                    try:
                        answer = self.window(name, variant, job, self.options.seconds)
                    except Broken as error:
                        self.report(name, task, variant, error)
                        del best[task, name]
                        continue
                    windows.append(
                        {"round": number, "task": task, "peer": name, "variant": variant, **answer}
                    )
            print(f"round {number + 1} of {self.options.rounds} done", flush=True)
        return windows

    def check(self):
        """Beside moonflow's, for the same parameters and rows: mean NLL, gradient norm, number of
        parameters, masks and widths. Fails where more differs than is known to."""
        failed = False
        for index in self.options.shapes:
            job = {"job": "check", **SHAPES[index], **FLOW, "spread": SPREADS[self.options.flow]}
            expected = None
            for name, (_, choices, known) in self.peers.items():
                if known is None or name in TRAIN_ONLY or name == "pytorch-compile":
                    continue
                variants = [("nets", nets) for nets in choices.get("nets", [])]
                variants = variants or [("model", model) for model in choices.get("model", [""])]
                for key, word in variants:
                    try:
                        worker = self.worker(name, self.options.threads[0])
                        answer = worker.ask({**job, key: word}, self.options.timeout)
                    except Broken as error:
                        failed = True
                        print(f"shape {index}  {name} {word}: {error}")
                        continue
                    expected = expected or answer
                    found = differences(answer, expected, self.options.flow)
                    failed |= not found <= known
                    verdict = "other " + ", ".join(sorted(found)) if found else "same"
                    print(
                        f"shape {index}  {name + ' ' + word:24} {shown(answer, expected)}: "
                        f"{verdict if found <= known else verdict.upper()}",
                        flush=True,
                    )
        return 1 if failed else 0

    def process(self):
        """The whole-process job: wall time from start to end, peers in turn."""
        options, windows, best = self.options, [], {}
        for number in range(-1, options.rounds):
            for name in ("moonflow", "pytorch", "jax-scan"):
                if name not in self.peers or number >= 0 and name not in best:
                    continue
                variants = [best[name]] if number >= 0 else self.process_variants(name)
                trials = []
                for variant in variants:
                    try:
                        seconds, nll = self.whole(name, variant)
                    except Broken as error:
                        self.report(name, ("process", 0), variant, error)
                        best.pop(name, None)
                        continue
                    trials.append((seconds, variant))
                    if number >= 0:
                        window = {
                            "round": number,
                            "task": ("process", 0),
                            "peer": name,
                            "variant": variant,
                        }
                        windows.append({**window, "rate": seconds, "nll": nll})
                if number < 0 and trials:
                    trials.sort(key=lambda trial: trial[0])
                    best[name] = trials[0][1]
                    listed = ", ".join(f"{describe(v)} {seconds:.2f} s" for seconds, v in trials)
                    print(f"calibration  {label(('process', 0))}  {name}: {listed}", flush=True)
            print(
                (
                    "calibration done"
                    if number < 0
                    else f"round {number + 1} of {options.rounds} done"
                ),
                flush=True,
            )
        return windows

    def process_variants(self, name):
        choices = {"threads": self.options.threads, **self.peers[name][1]}
        return [dict(zip(choices, values)) for values in itertools.product(*choices.values())]

    def whole(self, name, variant):
        """Wall seconds and held-out NLL of one run of the whole-process job."""
        options = self.options
        env = environment(variant["threads"])
        env |= {key.upper(): variant[key] for key in ("nets", "adam") if key in variant}
        if name == "moonflow":
            out = pathlib.Path(options.scratch) / "moons"
            flags = "train moons --layers 8 --hidden 64,64 --epochs 60 --batch 256 --device"
            device = "cpu" if options.device == "cpu" else "gpu"
            command = [options.moonflow, *flags.split(), device, "--out", str(out)]
        else:
            script = python("pytorch" if name == "pytorch" else "jax")
            fields = {"python": options.python, "here": HERE, "device": options.device}
            command = [part.format(**fields, threads=variant["threads"]) for part in script] + [
                "--whole"
            ]
        time.sleep(options.pause)
        start = time.monotonic()
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=options.log,
                env=env,
                timeout=options.timeout,
                text=True,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Broken(str(error)) from None
        seconds = time.monotonic() - start
        found = re.search(r"held out\s+NLL (-?[\d.]+)", done.stdout)
        if done.returncode or not found:
            raise Broken(f"ended with status {done.returncode}; see the log")
        return seconds, float(found[1])

    def end(self):
        for worker in self.workers.values():
            worker.end()


def differences(answer, expected, flow):
    """In what a check's answer differs from moonflow's: density, masks and widths."""
    found = set()
    tolerances = {"nll": TOLERANCE, "grad_norm": GRADIENT_TOLERANCES.get(flow, TOLERANCE)}
    errors = relative(answer, expected)
    if not errors or any(not error <= tolerances[key] for key, error in errors.items()):
        found.add("density")
    if flow == "affine":
        same = answer["parameters"] == expected["parameters"]
        return found if same else {*found, "widths"}
    column = lambda checked, key: [coupling[key] for coupling in checked["couplings"]]
    if column(answer, "kept") != column(expected, "kept"):
        found.add("masks")
    # moonflow stores weights that its masks remove too.
    count = answer["parameters"] if answer is not expected else parameters(expected)
    same = column(answer, "widths") == column(expected, "widths")
    if not same or count != parameters(expected):
        found.add("widths")
    return found


def relative(answer, expected):
    """Relative differences of mean NLL and gradient norm, where a worker gives them."""
    keys = [key for key in ("nll", "grad_norm") if key in answer]
    return {key: abs(answer[key] / expected[key] - 1) for key in keys}


def parameters(checked):
    """Those that the couplings' widths make."""
    widths = [coupling["widths"] for coupling in checked["couplings"]]
    return sum((a + 1) * b for listed in widths for a, b in itertools.pairwise(listed))


def shown(answer, expected):
    """A check's answer in words."""
    words = [f"{answer['parameters']} parameters"]
    if answer.get("couplings"):
        first = answer["couplings"][0]
        widths = "→".join(map(str, first["widths"]))
        kept = ",".join(map(str, first["kept"][:3]))
        words = [f"{len(answer['couplings'])} networks {widths}, the first from {kept}…", *words]
    errors = relative(answer, expected)
    if errors:
        words.append(f"NLL {answer['nll']:.6f}, gradient norm {answer['grad_norm']:.6f}")
        words.append(
            "relative differences " + " ".join(f"{error:.1e}" for error in errors.values())
        )
    return ", ".join(words)


def describe(variant):
    words = [f"{variant['threads']} thread{'s' if variant['threads'] > 1 else ''}"]
    return " ".join(words + [str(value) for key, value in variant.items() if key != "threads"])


def label(task):
    name, index = task
    if name == "process":
        return "whole process: D 2, 8 layers, 64×64, batch 256, 60 epochs of 9,000 rows"
    shape = SHAPES[index]
    rows = LARGE if name.endswith("_large") else shape["batch"]
    flow = "" if FLOW["flow"] == "affine" else f" {FLOW['flow']}"
    return "{}: D {features}, {layers} layers, {hidden}×{hidden}, batch {rows:,}".format(
        name.removesuffix("_large") + flow, rows=rows, **shape
    )


def tasks(options):
    """(job, shape) to what workers are told, all but the seconds."""
    table = {}
    steps = TOY_STEPS if options.toy else STEPS[options.device]
    for name, index in options.tasks or itertools.product(options.jobs, options.shapes):
        shape = {**SHAPES[index], **FLOW}
        if name == "train":
            table[name, index] = {"job": "train", **shape, "steps": steps[index]}
        elif name != "process":
            rows = LARGE if name.endswith("_large") else shape["batch"]
            table[name, index] = {"job": name.removesuffix("_large"), **shape, "rows": rows}
    return table


def table(windows):
    """Medians and ratios as lines. A ratio above 1: moonflow is faster, for seconds too."""
    rates = collections.defaultdict(lambda: collections.defaultdict(dict))
    variants, cores = {}, collections.defaultdict(list)
    for window in windows:
        cores[window["task"], window["peer"]].append(window.get("cores", 0.0))
        rates[window["task"]][window["peer"]][window["round"]] = window["rate"]
        variants[window["task"], window["peer"]] = describe(window["variant"])
    lines = []
    for task, by_peer in rates.items():
        unit = UNITS.get(task[0], "rows/s")
        lines += [
            "",
            f"{label(task)}",
            f"{'':24} {unit:>10}  moonflow ÷ peer (range)   cores  variant",
        ]
        own = by_peer.get("moonflow", {})
        for name, by_round in by_peer.items():
            ratios = [own[r] / rate for r, rate in by_round.items() if r in own]
            if task[0] == "process":
                ratios = [1 / ratio for ratio in ratios]
            compared = ""
            if ratios and name != "moonflow":
                compared = (
                    f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                )
            median = statistics.median(by_round.values())
            shown = f"{median:.1f}" if task[0] in UNITS else f"{median:,.0f}"
            busy = statistics.median(cores[task, name])
            used = f"{busy:.1f}" if busy else ""
            lines.append(f"{name:24} {shown:>10}  {compared:24}  {used:>5}  {variants[task, name]}")
    for name in dict.fromkeys(w["peer"] for w in windows if w["task"][0] == "process"):
        nlls = [w["nll"] for w in windows if w["peer"] == name and w["task"][0] == "process"]
        lines.append(f"{name:24} held-out NLL {statistics.median(nlls):.4f} nats")
    return lines


def machine():
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
        model = re.search(r"model name\s*: (.*)", text)[1]
        flags = re.search(r"flags\s*: (.*)", text)[1].split()
    except (OSError, TypeError):
        model, flags = platform.processor() or platform.machine(), []
    widest = next((name for name in ("avx512f", "avx2") if name in flags), "")
    return f"{CORES} cores {model} {widest}".strip()


def command():
    """The command line without the flags that only say where things lie."""
    places = ("--python", "--bin", "--moonflow", "--out")
    words, kept = iter(sys.argv[1:]), ["compare.py"]
    for word in words:
        if word in places:
            next(words, None)
        elif not word.startswith(tuple(f"{place}=" for place in places)):
            kept.append(word)
    return " ".join(kept)


def installed(options):
    """Versions of Python and of the packages in requirements.txt, as the interpreter has them."""
    names = [line.split("==")[0] for line in (HERE / "requirements.txt").read_text().split()]
    script = (
        "import importlib.metadata as m, json, platform, sys\n"
        "have = {d.name.lower(): d.version for d in m.distributions()}\n"
        "found = {name: have[name] for name in sys.argv[1:] if name in have}\n"
        "print(json.dumps({'python': platform.python_version(), **found}))"
    )
    try:
        return json.loads(
            subprocess.check_output([options.python, "-c", script, *names], text=True)
        )
    except (OSError, subprocess.CalledProcessError):
        return {}


def revision():
    """That of the sources; a copy that was carried elsewhere has it in a file."""
    carried = ROOT / "revision"
    if carried.exists():
        return carried.read_text().strip()

    def git(*words):
        command = ["git", "-C", str(ROOT), *words]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        return found.stdout.strip()

    try:
        changes = " with changes" if git("status", "--porcelain", "-uno") else ""
        return git("rev-parse", "--short", "HEAD") + changes
    except OSError:
        return ""


def task(word):
    """(job, shape) of a word such as train:0."""
    name, _, index = word.partition(":")
    if name not in JOBS[:-1] or index not in ("0", "1", "2"):
        raise argparse.ArgumentTypeError(f"{word!r} is no job and shape such as train:0")
    return name, int(index)


def parse():
    global LARGE
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words = lambda text: text.split(",")
    numbers = lambda text: [int(word) for word in text.split(",")]
    parser.add_argument(
        "--device", choices=["cpu", "cuda", "adapter"], default="cpu", help="adapter: wgpu alone"
    )
    parser.add_argument("--flow", choices=FLOWS, default=FLOWS[0], help="what is learnt")
    parser.add_argument("--peers", type=words, help="all of the device by default; moonflow always")
    parser.add_argument("--jobs", type=words, default=JOBS[:-1], help=f"of {','.join(JOBS)}")
    parser.add_argument("--shapes", type=numbers, help="of 0,1,2; 0 for an adapter, else all")
    parser.add_argument(
        "--tasks",
        type=lambda text: [task(word) for word in text.split(",")],
        help="instead of --jobs and --shapes, pairs of them in order: train:0,sample_large:2",
    )
    parser.add_argument("--large", type=int, help="rows of the large jobs [default: 65536]")
    parser.add_argument("--toy", action="store_true", help="tiny shapes, to see that all runs")
    parser.add_argument(
        "--engine", choices=["cpu", "gpu"], help="moonflow's; the device's by default"
    )
    parser.add_argument(
        "--threads", type=numbers, default=sorted({1, CORES}), help="counts that calibration tries"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of a window")
    parser.add_argument(
        "--calibration", type=float, default=1.0, help="length of a calibration window"
    )
    parser.add_argument("--variants", type=int, help="most that calibration tries of each peer")
    parser.add_argument("--pause", type=float, default=0.3, help="rest before each window")
    parser.add_argument(
        "--timeout",
        type=float,
        default=900,
        help="longest wait for an answer, compilation included",
    )
    parser.add_argument(
        "--budget",
        type=float,
        help="seconds for everything: one task after the other, and results are written after each",
    )
    parser.add_argument("--tf32", action="store_true", help="let peers on CUDA use TF32 products")
    parser.add_argument(
        "--check", action="store_true", help="compare the models instead of timing them"
    )
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter that has requirements.txt"
    )
    parser.add_argument(
        "--bin", default=str(ROOT / "target/peers/release"), help="folder of the Rust workers"
    )
    parser.add_argument("--moonflow", default=str(ROOT / "target/release/moonflow"))
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "target/peers/compare")
    options = parser.parse_args()
    options.deadline = time.monotonic() + (options.budget or float("inf"))
    options.shapes = options.shapes or ([0] if options.device == "adapter" else [0, 1, 2])
    options.engine = options.engine or ("cpu" if options.device == "cpu" else "gpu")
    FLOW["flow"] = options.flow
    if options.toy:
        SHAPES[:] = TOY_SHAPES
    LARGE = options.large or (TOY_LARGE if options.toy else LARGE)
    if set(options.jobs) - set(JOBS):
        parser.error(f"--jobs takes some of {','.join(JOBS)}")
    if "process" in options.jobs and options.flow != "affine":
        parser.error("the job process is one of affine flows")
    if options.device != "cpu":
        options.threads = options.threads[-1:]
    return options


def write(options, comparison, windows):
    """The table and every window, in files of their own names only once they are whole."""
    versions = installed(options)
    for hello in comparison.hellos.values():
        versions |= hello["versions"]
    about = {
        "command": command(),
        "date": datetime.date.today().isoformat(),
        "revision": revision(),
        "machine": machine(),
        "device": sorted({hello["device"] for hello in comparison.hellos.values()}),
        "versions": versions,
        "idle_cores": round(comparison.idle, 3),
        "left_out": comparison.broken,
    }
    lines = [f"# {about['command']}"]
    lines.append(f"# revision {about['revision']}, {about['date']}, {about['machine']}")
    lines.append(f"# devices: {'; '.join(about['device'])}")
    lines.append(
        "# " + ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    )
    lines.append(f"# {options.rounds} rounds of {options.seconds} s windows; medians")
    lines.append(f"# busiest idle worker during a window: {comparison.idle:.1%} of a core")
    lines += [f"# left out: {what}: {why}" for what, why in comparison.broken.items()]
    lines += table(windows)
    text = "\n".join(lines) + "\n"
    raw = {**about, "windows": [{**window, "task": label(window["task"])} for window in windows]}
    for name, content in (
        ("compare.txt", text),
        ("compare.json", json.dumps(raw, indent=1) + "\n"),
    ):
        whole = options.out / f"{name}.tmp"
        whole.write_text(content)
        whole.replace(options.out / name)
    return text


def main():
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    options.scratch = options.out
    windows = []
    with open(options.out / "workers.log", "w") as options.log:
        comparison = Comparison(options)
        try:
            if options.check:
                return comparison.check()
            listed = tasks(options)
            # Under a budget a task is done before the next begins, so that it is known.
            groups = [{task: job} for task, job in listed.items()] if options.budget else [listed]
            for number, group in enumerate(groups):
                now = time.monotonic()
                share = (options.deadline - now) / (len(groups) - number)
                comparison.until = now + CALIBRATION_SHARE * share
                best = comparison.calibrate(group)
                comparison.until = now + share
                windows += comparison.measure(group, best)
                if options.budget:
                    write(options, comparison, windows)
            comparison.end()
            if "process" in options.jobs:
                windows += comparison.process()
        finally:
            comparison.end()
    print(write(options, comparison, windows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
