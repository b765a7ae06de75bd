"""normflows: MaskedAffineFlow with its own MLPs, moonflow's model parameter for parameter, and
CoupledRationalQuadraticSpline, which transforms the kept features besides, by constant splines.

Its forward direction is latent to data, so its list of flows is moonflow's reversed. The loop is
that of the PyTorch peer.
"""

import normflows
import torch

import protocol
import pytorch_peer


def affine(job):
    widths = [job["features"], job["hidden"], job["hidden"], job["features"]]
    flows = []
    for mask, pair in zip(protocol.masks(job), protocol.networks(job)):
        bound = {"output_fn": "tanh", "score_scale": 0.5, "output_scale": 2.0}
        scale = normflows.nets.MLP(widths, **bound)
        translate = normflows.nets.MLP(widths)
        for mlp, values in zip((scale, translate), pair):
            pytorch_peer.load(mlp, values)
        flows.append(normflows.flows.MaskedAffineFlow(torch.from_numpy(mask), translate, scale))
    return flows


def splines(job):
    flows = [
        normflows.flows.CoupledRationalQuadraticSpline(
            job["features"],
            1,
            job["hidden"],
            num_bins=job["bins"],
            tail_bound=job["tail_bound"],
            reverse_mask=layer % 2 == 1,
        )
        for layer in range(job["layers"])
    ]
    pytorch_peer.load_splines([flow.prqct for flow in flows], job)
    return flows


class Flow(normflows.NormalizingFlow):
    """The loss and sampling of normflows under the names that the worker uses."""

    def __init__(self, job):
        flows = {"affine": affine, "residual-spline": splines}[job.get("flow", "affine")](job)
        base = normflows.distributions.DiagGaussian(job["features"], trainable=False)
        super().__init__(base, flows[::-1])

    def couplings(self):
        flows = [flow for flow in self.flows[::-1] if hasattr(flow, "prqct")]
        return pytorch_peer.couplings([flow.prqct for flow in flows])

    def loss(self, x):
        return self.forward_kld(x)

    def sample(self, rows):
        return super().sample(rows)[0]


class Worker(pytorch_peer.Worker):
    def model(self, job, zero_last=False):
        return Flow(job).to(self.device)


if __name__ == "__main__":
    versions = {"normflows": normflows.__version__, "torch": torch.__version__}
    protocol.serve(Worker(protocol.arguments(__doc__)), versions)
