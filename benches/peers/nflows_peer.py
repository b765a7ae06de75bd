"""nflows: spline couplings with joint or residual networks, and affine ones with joint networks.

Its splines are moonflow's, number for number; its scale is a sigmoid in place of exp(2·tanh(o/2)).
The loop is that of the PyTorch peer.
"""

import torch
from nflows.distributions import StandardNormal
from nflows.flows import Flow as Distribution
from nflows.nn.nets import ResidualNet
from nflows.transforms import (
    AffineCouplingTransform,
    CompositeTransform,
    PiecewiseRationalQuadraticCouplingTransform,
)
from nflows.version import VERSION

import protocol
import pytorch_peer


class Network(torch.nn.Sequential):
    """A joint network; nflows' own MLP does not take the context that a coupling gives it."""

    def __init__(self, inputs, hidden, outputs):
        layers = [torch.nn.Linear(inputs, hidden), torch.nn.ReLU()]
        layers += [torch.nn.Linear(hidden, hidden), torch.nn.ReLU()]
        super().__init__(*layers, torch.nn.Linear(hidden, outputs))

    def forward(self, x, context=None):
        return super().forward(x)


class Flow(torch.nn.Module):
    """The density and sampling of nflows under the names that the worker uses."""

    def __init__(self, job):
        super().__init__()
        splines = job["flow"] != "joint"

        def network(inputs, outputs):
            if job["flow"] == "residual-spline":
                return ResidualNet(inputs, outputs, job["hidden"], num_blocks=1)
            return Network(inputs, job["hidden"], outputs)

        def transform(mask):
            # Its masks are 1 where a feature is transformed.
            mask = torch.from_numpy(1 - mask)
            if not splines:
                return AffineCouplingTransform(mask, network)
            options = {"num_bins": job["bins"], "tails": "linear", "tail_bound": job["tail_bound"]}
            return PiecewiseRationalQuadraticCouplingTransform(mask, network, **options)

        self.transforms = [transform(mask) for mask in protocol.masks(job)]
        if splines:
            pytorch_peer.load_splines(self.transforms, job)
        base = StandardNormal([job["features"]])
        self.flow = Distribution(CompositeTransform(self.transforms), base)

    def couplings(self):
        return pytorch_peer.couplings(self.transforms)

    def log_prob(self, x):
        return self.flow.log_prob(x)

    def loss(self, x):
        return -self.log_prob(x).mean()

    def sample(self, rows):
        return self.flow.sample(rows)


class Worker(pytorch_peer.Worker):
    def model(self, job, zero_last=False):
        return Flow(job).to(self.device)


if __name__ == "__main__":
    versions = {"nflows": VERSION, "torch": torch.__version__}
    protocol.serve(Worker(protocol.arguments(__doc__)), versions)
