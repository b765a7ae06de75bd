"""flowjax: its coupling_flow with its own affine transformer. The nearest form, not the same model.

One network gives scale and shift of the transformed half from the kept half: about half of
moonflow's parameters and products. Permutations stand between layers. Training is a jitted step or
one lax.scan an epoch; loss and optimiser are flowjax's and optax's.
"""

import equinox as eqx
import flowjax
import jax
import numpy as np
import optax
import paramax
from flowjax.distributions import Normal
from flowjax.flows import coupling_flow
from flowjax.train.losses import MaximumLikelihoodLoss
from jax import numpy as jnp

import jax_peer
import protocol


class Worker(jax_peer.Worker):
    def flow(self, job):
        return coupling_flow(
            jax.random.key(1),
            base_dist=Normal(jnp.zeros(job["features"])),
            flow_layers=job["layers"],
            nn_width=job["hidden"],
            nn_depth=2,
            # Fast log_prob, or fast sampling: what the job asks for.
            invert=job["job"] != "sample",
        )

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
