"""The trainable parameters of a group of runs, kept so that looking at all of them, and updating them, is cheap."""

# K runs, P parameters of a run

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Up to this many parameters a run lies in one row: kernels that start cost more than gradients that are copied. A bound
# on the run, not on the group, so that a group that shrinks keeps its layout and its bits.
ROWS_UP_TO = 2048


class Weights:
    """`params` are [K, ...], views of `whole`. `parts` and `gathered` give parameters and gradients in the shape that
    update rules get: a row of P numbers per run for small runs, else a tensor per parameter."""

    def __init__(self, params: Sequence[Tensor], *, in_rows: bool = True) -> None:
        """`params` are copied. `in_rows`: small runs may lie in rows."""
        runs = params[0].shape[0]
        sizes = [math.prod(param.shape[1:]) for param in params]
        self.in_rows = in_rows and sum(sizes) <= ROWS_UP_TO
        if self.in_rows:
            self.whole = torch.cat([param.reshape(runs, -1) for param in params], 1)
            pieces = self.whole.split(sizes, 1)
            self._grads = torch.zeros_like(self.whole)
            cut = zip(self._grads.split(sizes, 1), params, strict=True)
            self._grad_views = [piece.view(param.shape) for piece, param in cut]
        else:
            self.whole = torch.cat([param.reshape(-1) for param in params])
            pieces = self.whole.split([runs * size for size in sizes])
        self.params = [piece.view(param.shape) for piece, param in zip(pieces, params, strict=True)]
        self.parts = [self.whole] if self.in_rows else self.params
        self.rule_shapes = [tuple(part.shape[1:]) for part in self.parts]

    def gathered(self, grads: Sequence[Tensor]) -> Sequence[Tensor]:
        """Gradients of `params` as those of `parts`; in rows they are copied, and hold until the next call."""
        if not self.in_rows:
            return grads
        torch._foreach_copy_(self._grad_views, list(grads))
        return [self._grads]

    def finite(self) -> bool:
        """A quick look at everything; False may be a false alarm (a sum can overflow), True never is."""
        return math.isfinite(self.whole.sum().item())

    def not_finite(self) -> list[int]:
        """The rows of the runs that hold a weight which is not finite."""
        fine = torch.stack([param.unsqueeze(-1).flatten(1).isfinite().all(1) for param in self.params]).all(0)
        return [row for row, ok in enumerate(fine.tolist()) if not ok]

    def clear(self, rows: Tensor) -> None:
        """Set the weights of these runs to 0."""
        for part in self.parts:
            part.index_fill_(0, rows, 0.0)
