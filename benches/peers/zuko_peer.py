"""zuko: its RealNVP, the same couplings with splines, and NSF(passes=2). The loop is PyTorch's.

One network gives all numbers of the transformed features from the kept ones. They are bounded by
soft clips: a log-scale in place of 2·tanh(o/2), and what bins and slopes come from.
NSF(passes=2) is an autoregressive flow in two passes: it keeps halves, transforms the kept half
too, by constants, and masks the weights of full-width networks in every step.
"""

from functools import partial

import torch
import zuko

import protocol
import pytorch_peer


class Flow(torch.nn.Module):
    """The density and sampling of zuko under the names that the worker uses."""

    def __init__(self, job):
        super().__init__()
        options = {"transforms": job["layers"], "hidden_features": (job["hidden"], job["hidden"])}
        if job.get("flow") == "spline":
            bins = job["bins"]
            # Its NSF is a MAF of these, whose bound is 5 where it is not told.
            spline = partial(zuko.transforms.MonotonicRQSTransform, bound=job["tail_bound"])
            options |= {"univariate": spline, "shapes": [(bins,), (bins,), (bins - 1,)]}
        self.passes = job.get("model") == "passes"
        if self.passes:
            self.flow = zuko.flows.MAF(job["features"], passes=2, **options)
        else:
            self.flow = zuko.flows.RealNVP(job["features"], **options)

    def couplings(self):
        transforms = self.flow.transform.transforms
        kept = [(t.order == 0 if self.passes else t.mask).nonzero() for t in transforms]
        return [pytorch_peer.coupling(k, t.hyper) for k, t in zip(kept, transforms)]

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
