"""An optimizer as its user writes it: Lion (Chen et al., 2023, algorithm 2), one parameter after another."""

import torch


class Lion(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            lr, (beta1, beta2), decay = group["lr"], group["betas"], group["weight_decay"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                momentum = state["momentum"]
                p.mul_(1 - lr * decay)
                p.add_(torch.sign(momentum * beta1 + p.grad * (1 - beta1)), alpha=-lr)
                momentum.mul_(beta2).add_(p.grad, alpha=1 - beta2)
