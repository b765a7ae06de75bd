"""Hand-written PyTorch: eager, torch.compile and, on CUDA, CUDA graphs.

Adam is fused, gradients are set to None, the epoch's rows are gathered once. `nets` says
whether the scale and translate networks run one after the other or stacked as batched products;
the driver keeps the faster.
"""

import math
import os

import numpy as np
import torch
from torch.nn import functional as F

import protocol


class Flow(torch.nn.Module):
    """The model of moonflow, full-width masked inputs and outputs."""

    def __init__(self, job, zero_last=False):
        super().__init__()
        self.features = job["features"]
        self.stacked = job["nets"] == "stacked"
        masks = torch.from_numpy(protocol.masks(job))
        self.register_buffer("kept", masks)
        self.register_buffer("moved", 1 - masks)
        self.weights = torch.nn.ParameterList()
        for pair in protocol.networks(job, zero_last):
            for array in stack(pair) if self.stacked else separate(pair):
                self.weights.append(torch.nn.Parameter(torch.from_numpy(array.copy())))
        self.per_layer = len(self.weights) // job["layers"]

    def conditioner(self, layer, x):
        """s and t [B, D] of a layer, zero where features are kept."""
        x = x * self.kept[layer]
        weights = self.weights[layer * self.per_layer : (layer + 1) * self.per_layer]
        if self.stacked:
            w1, b1, w2, b2, w3, b3 = weights
            h = F.linear(x, w1, b1).relu().view(len(x), 2, -1).transpose(0, 1)
            h = torch.baddbmm(b2, h, w2).relu()
            o, t = torch.baddbmm(b3, h, w3)
        else:
            o, t = mlp(x, weights[:6]), mlp(x, weights[6:])
        moved = self.moved[layer]
        return moved * (2 * torch.tanh(0.5 * o)), moved * t

    def log_prob(self, x):
        log_scales = 0
        for layer in range(len(self.kept)):
            s, t = self.conditioner(layer, x)
            x = (x - t) * torch.exp(-s)
            log_scales = log_scales + s
        return -(0.5 * x * x + log_scales).sum(1) - 0.5 * self.features * math.log(2 * math.pi)

    def loss(self, x):
        return -self.log_prob(x).mean()

    def sample(self, rows):
        x = torch.randn(rows, self.features, device=self.kept.device)
        for layer in reversed(range(len(self.kept))):
            s, t = self.conditioner(layer, x)
            x = x * torch.exp(s) + t
        return x


def mlp(x, weights):
    w1, b1, w2, b2, w3, b3 = weights
    h = F.linear(x, w1, b1).relu()
    h = F.linear(h, w2, b2).relu()
    return F.linear(h, w3, b3)


def separate(pair):
    return [array for network in pair for linear in network for array in linear]


def stack(pair):
    """The first layer as one with 2H outputs, the others as [2, in, out] and [2, 1, out]."""
    (w1, b1), *deeper = zip(*pair)
    arrays = [np.concatenate([w for w, _ in (w1, b1)]), np.concatenate([b for _, b in (w1, b1)])]
    for linears in deeper:
        arrays.append(np.stack([w.T for w, _ in linears]))
        arrays.append(np.stack([b[None] for _, b in linears]))
    return arrays


def linears(network):
    """Its linear layers, from input to output."""
    return [part for part in network.modules() if hasattr(part, "weight")]


def load(network, values):
    """Sets the parameters of a network's linear layers."""
    for linear, (weight, bias) in zip(linears(network), values, strict=True):
        linear.weight.data.copy_(torch.from_numpy(weight))
        linear.bias.data.copy_(torch.from_numpy(bias))


def coupling(kept, network):
    """What a coupling consists of, as a check tells it."""
    layers = linears(network)
    widths = [layers[0].in_features] + [linear.out_features for linear in layers]
    return {"kept": [int(feature) for feature in kept], "widths": widths}


def couplings(transforms):
    """What the couplings of nflows consist of, or of normflows, which has the same code."""
    return [coupling(part.identity_features, part.transform_net) for part in transforms]


def load_splines(transforms, job):
    """Sets the parameters of their networks to moonflow's."""
    for transform, values in zip(transforms, protocol.spline_networks(job)):
        load(transform.transform_net, values)
        if job["job"] == "check" and hasattr(transform.transform_net, "hidden_features"):
            # Where a network has it, numbers of widths and heights are divided by its square root.
            del transform.transform_net.hidden_features


class Worker:
    """Trains, scores and samples what has `parameters`, `loss`, `log_prob` and `sample`."""

    def __init__(self, options):
        self.device = torch.device(options.device)
        torch.set_num_threads(options.threads)
        torch.set_num_interop_threads(1)
        torch.set_float32_matmul_precision("high" if options.tf32 else "highest")

    def device_name(self):
        return torch.cuda.get_device_name() if self.device.type == "cuda" else "CPU"

    def model(self, job, zero_last=False):
        return Flow(job, zero_last).to(self.device)

    def wait(self, handle):
        if isinstance(handle, torch.cuda.Event):
            handle.synchronize()

    def done(self):
        """A handle on all the work queued so far."""
        if self.device.type != "cuda":
            return ()
        event = torch.cuda.Event()
        event.record()
        return event

    def check(self, job):
        model = self.model(job)
        # moonflow has no unconditional transforms; those of others begin as the identity.
        named = model.named_parameters()
        parameters = [value for name, value in named if "unconditional" not in name]
        loss = model.loss(torch.from_numpy(protocol.check_rows(job)).to(self.device))
        loss.backward()
        norm = torch.sqrt(sum((p.grad.double() ** 2).sum() for p in parameters))
        count = sum(p.numel() for p in parameters)
        answer = {"nll": loss.item(), "grad_norm": norm.item(), "parameters": count}
        if hasattr(model, "couplings"):
            answer["couplings"] = model.couplings()
        return answer

    def prepare(self, job):
        model = self.model(job)
        compiled = torch.compile if "compile" in job["form"] else lambda function: function
        # Inference mode is the cheaper of the two, but torch.compile does not take it everywhere.
        quiet = torch.no_grad if "compile" in job["form"] else torch.inference_mode
        if job["job"] == "train":
            rows = protocol.normal_rows(job["steps"] * job["batch"], job["features"])
            data = torch.from_numpy(rows).to(self.device)
            step = self.step(
                model, compiled(model.loss), data[: job["batch"]], "graphs" in job["form"]
            )

            def train():
                total = 0.0
                order = torch.randperm(len(data), device=self.device)
                for x in data[order].split(job["batch"]):
                    total = total + step(x)
                return self.done()

            return train, job["steps"]

        rows = job["rows"]
        if job["job"] == "log_prob":
            x = torch.from_numpy(protocol.normal_rows(rows, job["features"]))
            x = x.pin_memory() if self.device.type == "cuda" else x
            log_prob = compiled(model.log_prob)

            def run():
                return log_prob(x.to(self.device, non_blocking=True))

        else:
            draw = compiled(lambda: model.sample(rows))

            def run():
                return draw()

        def evaluate():
            with quiet():
                return run().cpu().numpy()

        return evaluate, rows

    def step(self, model, loss, example, graphs, rate=protocol.LEARNING_RATE):
        """One update as a function of a batch that gives its loss."""
        parameters = list(model.parameters())
        adam = torch.optim.Adam(parameters, lr=rate, fused=True, capturable=graphs)

        def update(x):
            adam.zero_grad(set_to_none=True)
            value = loss(x)
            value.backward()
            torch.nn.utils.clip_grad_norm_(parameters, protocol.CLIP_NORM, foreach=True)
            adam.step()
            return value.detach()

        update.adam = adam
        if not graphs:
            return update

        # The whole step, update included, is recorded once; a step is then one copy and one launch.
        x = example.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(protocol.WARM_UP_RUNS):
                update(x)
            adam.zero_grad(set_to_none=True)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            value = update(x)

        def replay(batch):
            x.copy_(batch)
            graph.replay()
            return value

        return replay


def whole(worker):
    """The whole-process job; prints the held-out NLL."""
    train, validation, held_out, log_std = protocol.whole_data()
    train, validation, held_out = (
        torch.from_numpy(part).to(worker.device) for part in (train, validation, held_out)
    )
    job = {**protocol.WHOLE, "nets": os.environ.get("NETS", "separate")}
    model = worker.model(job, zero_last=True)
    step = worker.step(model, model.loss, train[: job["batch"]], False)
    batches = math.ceil(len(train) / job["batch"])
    steps = protocol.WHOLE_EPOCHS * batches
    done, best, kept = 0, math.inf, None
    for _ in range(protocol.WHOLE_EPOCHS):
        for x in train[torch.randperm(len(train), device=worker.device)].split(job["batch"]):
            step.adam.param_groups[0]["lr"] = (
                protocol.WHOLE_LEARNING_RATE * math.cos(0.5 * math.pi * done / steps) ** 2
            )
            step(x)
            done += 1
        with torch.inference_mode():
            score = model.loss(validation).item()
        if score < best:
            best, kept = score, [p.detach().clone() for p in model.parameters()]
    with torch.inference_mode():
        for parameter, value in zip(model.parameters(), kept):
            parameter.copy_(value)
        print(f"held out NLL {model.loss(held_out).item() + log_std:.4f}")


if __name__ == "__main__":
    options = protocol.arguments(__doc__)
    worker = Worker(options)
    if options.whole:
        whole(worker)
    else:
        protocol.serve(worker, {"torch": torch.__version__})
