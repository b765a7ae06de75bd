"""Hand-written JAX: a jitted step, and a whole epoch on the device as one lax.scan.

Buffers are donated and the epoch's permutation is drawn on the device. `nets` says whether the
scale and translate networks are separate products or stacked as batched ones, `adam` whether the
update goes tensor by tensor or over one flat vector; the driver keeps the fastest.
"""

import math
import os

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.flatten_util import ravel_pytree

import protocol


def start(options):
    """Settles device and threads, before the first computation."""
    # The pool of XLA's CPU client takes its size from here.
    os.environ["PJRT_NPROC"] = os.environ["NPROC"] = str(options.threads)
    if options.device == "cpu" and options.threads == 1:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false"
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jax.config.update("jax_platforms", options.device)
    if options.device == "cuda":
        precision = "tensorfloat32" if options.tf32 else "highest"
        jax.config.update("jax_default_matmul_precision", precision)


def initial(job, zero_last=False):
    """Parameters as a list over layers: of two networks, or of one stack of both."""
    layers = []
    for pair in protocol.networks(job, zero_last):
        if job["nets"] == "separate":
            layers.append([[(jnp.asarray(w.T), jnp.asarray(b)) for w, b in net] for net in pair])
        else:
            layers.append(
                [
                    (
                        jnp.asarray(np.stack([w.T for w, _ in linears])),
                        jnp.asarray(np.stack([b[None] for _, b in linears])),
                    )
                    for linears in zip(*pair)
                ]
            )
    return layers


def mlp(weights, x):
    (w1, b1), (w2, b2), (w3, b3) = weights
    h = jax.nn.relu(x @ w1 + b1)
    h = jax.nn.relu(h @ w2 + b2)
    return h @ w3 + b3


def conditioner(job, layer, weights, x):
    """s and t [B, D] of a layer, zero where features are kept."""
    kept = protocol.masks(job)[layer]
    x = x * kept
    o, t = [mlp(net, x) for net in weights] if job["nets"] == "separate" else mlp(weights, x)
    return (1 - kept) * (2 * jnp.tanh(0.5 * o)), (1 - kept) * t


def log_prob(job, parameters, x):
    log_scales = 0.0
    for layer, weights in enumerate(parameters):
        s, t = conditioner(job, layer, weights, x)
        x = (x - t) * jnp.exp(-s)
        log_scales = log_scales + s
    normal = 0.5 * job["features"] * math.log(2 * math.pi)
    return -(0.5 * x * x + log_scales).sum(1) - normal


def loss(job, parameters, x):
    return -log_prob(job, parameters, x).mean()


def sample(job, parameters, key, rows):
    x = jax.random.normal(key, (rows, job["features"]))
    for layer, weights in reversed(list(enumerate(parameters))):
        s, t = conditioner(job, layer, weights, x)
        x = x * jnp.exp(s) + t
    return x


def clip(gradient):
    squares = sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradient))
    factor = jnp.minimum(1.0, protocol.CLIP_NORM / jnp.sqrt(squares))
    return jax.tree.map(lambda g: factor * g, gradient)


def adam(state, gradient, rate):
    parameters, m, v, count = state
    count = count + 1
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, gradient)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, gradient)
    scale1, scale2 = 1 / (1 - 0.9**count), 1 / (1 - 0.999**count)
    parameters = jax.tree.map(
        lambda p, m, v: p - rate * (m * scale1) / (jnp.sqrt(v * scale2) + 1e-8), parameters, m, v
    )
    return parameters, m, v, count


def trainer(job, parameters):
    """The first state, a step (state, x, rate) to (state, loss), and what unpacks parameters."""
    if job["adam"] == "flat":
        parameters, unravel = ravel_pytree(parameters)
    else:
        unravel = lambda tree: tree
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    state = parameters, zeros, jax.tree.map(jnp.copy, zeros), jnp.zeros((), jnp.float32)

    def step(state, x, rate):
        value, gradient = jax.value_and_grad(lambda tree: loss(job, tree, x))(unravel(state[0]))
        if job["adam"] == "flat":
            gradient = ravel_pytree(gradient)[0]
        return adam(state, clip(gradient), rate), value

    return state, step, unravel


class Worker:
    def device_name(self):
        return jax.devices()[0].device_kind

    def wait(self, handle):
        jax.block_until_ready(handle)

    def check(self, job):
        parameters = initial(job)
        x = jnp.asarray(protocol.check_rows(job))
        value, gradient = jax.jit(jax.value_and_grad(lambda p: loss(job, p, x)))(parameters)
        leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(gradient)]
        return {
            "nll": float(value),
            "grad_norm": math.sqrt(sum((leaf**2).sum() for leaf in leaves)),
            "parameters": sum(leaf.size for leaf in leaves),
        }

    def prepare(self, job):
        if job["job"] == "train":
            state, step, _ = trainer(job, initial(job))
            return train(job, state, lambda state, x: step(state, x, protocol.LEARNING_RATE))
        parameters, rows = initial(job), job["rows"]
        if job["job"] == "log_prob":
            x = protocol.normal_rows(rows, job["features"])
            score = jax.jit(lambda parameters, x: log_prob(job, parameters, x))
            return lambda: np.asarray(score(parameters, x)), rows
        draw = jax.jit(lambda parameters, key: sample(job, parameters, key, rows))
        keys = Keys()
        return lambda: np.asarray(draw(parameters, next(keys))), rows


class Keys:
    """Random keys without a dispatch for each."""

    def __init__(self):
        self.count = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.count += 1
        return np.array([0, self.count], np.uint32)


def train(job, state, step):
    """A function that trains for an epoch, by steps or as one scan, and its number of steps."""
    steps, batch, features = job["steps"], job["batch"], job["features"]
    data = jnp.asarray(protocol.normal_rows(steps * batch, features))
    keys = Keys()

    def shuffled(key, data):
        return data[jax.random.permutation(key, len(data))].reshape(steps, batch, features)

    if job["form"] == "scan":

        def epoch(state, key, data):
            state, losses = lax.scan(step, state, shuffled(key, data))
            return state, losses.mean()

        epoch = jax.jit(epoch, donate_argnums=0)

        def run():
            nonlocal state
            state, value = epoch(state, next(keys), data)
            return value

    else:
        shuffle, step = jax.jit(shuffled), jax.jit(step, donate_argnums=0)

        def run():
            nonlocal state
            rows = np.asarray(shuffle(next(keys), data)) if on_host else shuffle(next(keys), data)
            for x in rows:
                state, value = step(state, x)
            return value

        # On the CPU a NumPy view of a batch is cheaper than a slice on the device.
        on_host = jax.default_backend() == "cpu"

    return run, steps


def whole():
    """The whole-process job, one scan an epoch, without the 40 rows that do not fill a batch."""
    train, validation, held_out, log_std = protocol.whole_data()
    job = {
        **protocol.WHOLE,
        "nets": os.environ.get("NETS", "separate"),
        "adam": os.environ.get("ADAM", "tree"),
    }
    state, step, unravel = trainer(job, initial(job, zero_last=True))
    batch = job["batch"]
    steps = len(train) // batch
    total = protocol.WHOLE_EPOCHS * steps

    def epoch(state, best, key):
        order = jax.random.permutation(key, len(train))[: steps * batch]
        rows = jnp.asarray(train)[order].reshape(steps, batch, -1)

        def scheduled(state, x):
            angle = 0.5 * math.pi * state[3] / total
            return step(state, x, protocol.WHOLE_LEARNING_RATE * jnp.cos(angle) ** 2)

        state, _ = lax.scan(scheduled, state, rows)
        score = loss(job, unravel(state[0]), validation)
        improved = score < best[0]
        kept = jax.tree.map(lambda new, old: jnp.where(improved, new, old), state[0], best[1])
        return state, (jnp.minimum(score, best[0]), kept)

    epoch = jax.jit(epoch, donate_argnums=(0, 1))
    best = jnp.inf, jax.tree.map(jnp.copy, state[0])
    for _, key in zip(range(protocol.WHOLE_EPOCHS), Keys()):
        state, best = epoch(state, best, key)
    nll = jax.jit(lambda parameters: loss(job, parameters, held_out))(unravel(best[1]))
    print(f"held out NLL {float(nll) + log_std:.4f}")


if __name__ == "__main__":
    options = protocol.arguments(__doc__)
    start(options)
    if options.whole:
        whole()
    else:
        protocol.serve(Worker(), {"jax": jax.__version__})
