"""The optimisers that a recipe may name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_QUINTIC = (3.4445, -4.7750, 2.0315)  # K. Jordan's: steepest at 0, and from 0 to 1 it ends between 0.7 and 1.2
_TURNS = 5


class Muon(torch.optim.Optimizer):
    """Muon: each weight matrix moves by its gradient's momentum made orthogonal; all else moves as in Adam.

        M ← μ M + G,  W ← W − lr √max(1, rows / columns) · orth(G + μ M),  orth(U S Vᵀ) ≈ U Vᵀ

    All directions of a layer's input so take an equal part in a step, not only the few along which the gradient is
    large: few steps go far. A convolution's filters are the rows of a matrix. The last matrix, whose rows are
    the classes, and vectors take Adam's step with a rate of `vector_lr` · lr.

    K. Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024.

    Arguments: `parameters`, in the order of the net; `lr`; `momentum` μ; `vector_lr`; `betas` and `eps`, Adam's.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.8,
        vector_lr: float = 0.06,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
    ) -> None:
        given = list(parameters)
        self._hidden = {id(p) for p in [p for p in given if p.dim() > 1][:-1]}
        super().__init__(given, {"lr": lr, "momentum": momentum, "vector_lr": vector_lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move all parameters that have a gradient; `closure` is not supported."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    (self._turn if id(p) in self._hidden else self._adam)(p, p.grad, group)

    def _turn(self, p: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        kept = state["momentum"].mul_(group["momentum"]).add_(gradient)
        ahead = gradient.add(kept, alpha=group["momentum"]).flatten(1)
        rate = group["lr"] * max(1, ahead.shape[0] / ahead.shape[1]) ** 0.5
        p.add_(orthogonal(ahead).view(p.shape), alpha=-rate)

    def _adam(self, p: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (b1, b2) = self.state[p], group["betas"]
        if not state:
            state |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        state["step"] += 1
        steps = int(state["step"])
        state["exp_avg"].lerp_(gradient, 1 - b1)
        state["exp_avg_sq"].lerp_(gradient.square(), 1 - b2)
        spread = (state["exp_avg_sq"] / (1 - b2**steps)).sqrt_().add_(group["eps"])
        p.addcdiv_(state["exp_avg"], spread, value=-group["lr"] * group["vector_lr"] / (1 - b1**steps))


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix with all singular values moved close to 1 (0.7 to 1.2; very small ones stay smaller), float32.

    Newton–Schulz steps X ← (a + b XXᵀ + c (XXᵀ)²) X, which need no decomposition.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.t() if tall else matrix).float()
    x = x / (x.norm() + 1e-7)
    a, b, c = _QUINTIC
    # WHY: all steps are polynomials in XXᵀ, so they are made on that small square alone, in float64 because it
    # holds squares of singular values: three times as fast as on X, whose long side each step meets twice.
    gram = (x @ x.t()).double()
    product = one = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for _ in range(_TURNS):
        turn = torch.addmm(a * one + b * gram, gram, gram, alpha=c)
        product = turn @ product
        gram = gram @ turn @ turn
    x = product.float() @ x
    return x.t() if tall else x


def _adam(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """Adam as Keras has it: PyTorch's own eps is ten times smaller."""
    return torch.optim.Adam(parameters, lr=lr, eps=1e-7, fused=True)


def _sgd(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


OPTIMISERS: dict[str, Callable[[Iterable[nn.Parameter], float], torch.optim.Optimizer]] = {
    "adam": _adam,
    "sgd": _sgd,
    "muon": Muon,
}
