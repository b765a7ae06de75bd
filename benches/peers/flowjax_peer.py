"""flowjax: its coupling_flow, with its affine transformer or its spline. The nearest form, not the
same model.

One network gives all numbers of the transformed half from the kept half. Permutations stand between
layers. Its splines learn their slopes at both ends too. Training is a jitted step or one lax.scan
an epoch; loss and optimiser are flowjax's and optax's.
"""

import equinox as eqx
import flowjax
import jax
import numpy as np
import optax
import paramax
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import Normal
from flowjax.flows import coupling_flow
from flowjax.train.losses import MaximumLikelihoodLoss
from jax import numpy as jnp

import jax_peer
import protocol


class Worker(jax_peer.Worker):
    def flow(self, job):
        spline = None
        if job.get("flow") == "spline":
            # Its knots are those inside.
            spline = RationalQuadraticSpline(knots=job["bins"] - 1, interval=job["tail_bound"])
        return coupling_flow(
            jax.random.key(1),
            base_dist=Normal(jnp.zeros(job["features"])),
            transformer=spline,
            flow_layers=job["layers"],
            nn_width=job["hidden"],
            nn_depth=2,
            # Fast log_prob, or fast sampling: what the job asks for.
            invert=job["job"] != "sample",
        )

    def check(self, job):
        """What the couplings consist of; their formulas are not moonflow's."""
        coupling = self.flow(job).bijection.bijection.bijection.bijections[0]
        # The layers lie in one array each.
        linears = [(linear.weight, linear.bias) for linear in coupling.conditioner.layers]
        widths = [linears[0][0].shape[2]] + [bias.shape[1] for _, bias in linears]
        kept = list(range(coupling.untransformed_dim))
        return {
            "parameters": sum(array.size for linear in linears for array in linear),
            "couplings": [{"kept": kept, "widths": widths}] * len(linears[0][0]),
        }

    def prepare(self, job):
        flow = self.flow(job)
        if job["job"] == "train":
            return train(job, flow)
        rows = job["rows"]
        if job["job"] == "log_prob":
            x = protocol.normal_rows(rows, job["features"])
            score = eqx.filter_jit(lambda flow, x: paramax.unwrap(flow).log_prob(x))
            return lambda: np.asarray(score(flow, x)), rows

        def sample(flow, key):
            return paramax.unwrap(flow).sample(jax.random.wrap_key_data(key), (rows,))

        draw = eqx.filter_jit(sample)
        keys = jax_peer.Keys()
        return lambda: np.asarray(draw(flow, next(keys))), rows


def train(job, flow):
    leaf = lambda node: isinstance(node, paramax.NonTrainable)
    parameters, static = eqx.partition(flow, eqx.is_inexact_array, is_leaf=leaf)
    optimizer = optax.chain(
        optax.clip_by_global_norm(protocol.CLIP_NORM), optax.adam(protocol.LEARNING_RATE)
    )
    loss = MaximumLikelihoodLoss()

    def step(state, x):
        parameters, optimizer_state = state
        value, gradient = jax.value_and_grad(lambda p: loss(p, static, x))(parameters)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, parameters)
        return (eqx.apply_updates(parameters, updates), optimizer_state), value

    return jax_peer.train(job, (parameters, optimizer.init(parameters)), step)


if __name__ == "__main__":
    options = protocol.arguments(__doc__)
    jax_peer.start(options)
    protocol.serve(Worker(), {"flowjax": flowjax.__version__, "jax": jax.__version__})
