"""zuko: its RealNVP. The nearest form, not the same model; the loop is PyTorch's.

One network gives scale and shift of the transformed features from the kept ones: about half of
moonflow's parameters and products. The log-scale's bound is a soft clip instead of 2·tanh(o/2).
"""

import torch
import zuko

import protocol
import pytorch_peer


class Flow(torch.nn.Module):
    """The density and sampling of zuko under the names that the worker uses."""

    def __init__(self, job):
        super().__init__()
        hidden = (job["hidden"], job["hidden"])
        self.flow = zuko.flows.RealNVP(
            job["features"], transforms=job["layers"], hidden_features=hidden
        )

    def log_prob(self, x):
        return self.flow().log_prob(x)

    def loss(self, x):
        return -self.log_prob(x).mean()

    def sample(self, rows):
        return self.flow().sample((rows,))


class Worker(pytorch_peer.Worker):
    def model(self, job, zero_last=False):
        return Flow(job).to(self.device)


if __name__ == "__main__":
    versions = {"zuko": zuko.__version__, "torch": torch.__version__}
    protocol.serve(Worker(protocol.arguments(__doc__)), versions)
