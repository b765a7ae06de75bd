"""normflows: MaskedAffineFlow with its own MLPs, moonflow's model parameter for parameter.

Its forward direction is latent to data, so its list of flows is moonflow's reversed. The loop is
that of the PyTorch peer.
"""

import normflows
import torch

import protocol
import pytorch_peer


class Flow(normflows.NormalizingFlow):
    """The loss and sampling of normflows under the names that the worker uses."""

    def __init__(self, job):
        widths = [job["features"], job["hidden"], job["hidden"], job["features"]]
        flows = []
        for mask, pair in zip(protocol.masks(job), protocol.networks(job)):
            bound = {"output_fn": "tanh", "score_scale": 0.5, "output_scale": 2.0}
            scale = normflows.nets.MLP(widths, **bound)
            translate = normflows.nets.MLP(widths)
            for mlp, network in zip((scale, translate), pair):
                linears = [layer for layer in mlp.net if isinstance(layer, torch.nn.Linear)]
                for linear, (weight, bias) in zip(linears, network):
                    linear.weight.data.copy_(torch.from_numpy(weight))
                    linear.bias.data.copy_(torch.from_numpy(bias))
            flows.append(normflows.flows.MaskedAffineFlow(torch.from_numpy(mask), translate, scale))
        base = normflows.distributions.DiagGaussian(job["features"], trainable=False)
        super().__init__(base, flows[::-1])

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
