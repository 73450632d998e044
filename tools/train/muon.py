"""Muon: momentum whose matrices are made orthogonal, for the matrices and convolution kernels of a network.

Keller Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024); the step's size is that of Liu
et al., "Muon is scalable for LLM training" (2025), so that a rate good for AdamW is good here.
"""

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = 5


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (N, rows, columns) with their singular values brought near to 1, by Newton-Schulz in bf16."""
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ROUNDS):
        square = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.transpose(1, 2) if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """For parameters of two or more dimensions; kernels count as matrices of output channels by all else."""

    def __init__(self, parameters, lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        """One step for all parameters that have a gradient; those of one shape are made orthogonal together."""
        for group in self.param_groups:
            shapes: dict[tuple, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault((parameter.shape[0], parameter[0].numel()), []).append(parameter)
            for (rows, columns), parameters in shapes.items():
                averages = [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in parameters]
                gradients = [p.grad for p in parameters]
                torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
                ahead = torch._foreach_lerp(gradients, averages, group["momentum"])  # Nesterov's look ahead
                updates = orthogonal(torch.stack([update.reshape(rows, columns) for update in ahead]))
                rate = group["lr"]
                torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
                scale = rate * 0.2 * max(rows, columns) ** 0.5
                for parameter, update in zip(parameters, updates):
                    parameter.add_(update.view(parameter.shape), alpha=-scale)
