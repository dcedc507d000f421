"""One training step, or one evaluation, of M stacked runs: losses and gradients from stacked weights and a batch.

A step is a `vmap` of the module over the runs, and one ordinary backward pass of the summed losses: the runs' graphs do
not touch, so a NaN in one leaves the others exact. It is recorded once per layout of batch (trace.py), rewritten
(passes.py), and then replayed.
"""

# M runs, B batch

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from lrsweep.compiler import by_run, passes, trace, vectors
from lrsweep.compiler.channels import RunsAmongChannels
from lrsweep.compiler.torch_private import tree_flatten, tree_unflatten
from lrsweep.compiler.tricks import enabled
from lrsweep.tasks import base
from lrsweep.training.data import layout_of
from lrsweep.training.loss_module import LossModule
from lrsweep.training.workload import Workload

MANY_SHAPES = 12  # batches of more shapes than this, for one number of runs, are computed without a recording


@dataclass(frozen=True, slots=True)
class Result:
    """`losses` and each of `metrics` are [M]; `grads` are [M, ...], one per trainable parameter.

    `own`: the positions of gradients that may be written into: nothing else lies in their memory.
    """

    losses: Tensor
    metrics: dict[str, Tensor]
    grads: list[Tensor]
    own: frozenset[int]


class Stepper:
    """Computes with one module and any number of stacked weights for it.

    `trainable` names the parameters that get a gradient; `fixed` the frozen ones, those the loss does not depend on,
    and the buffers. `shared`: all runs see the same batch; otherwise every tensor of a batch has a leading M.
    `stacked=False`: the weights of one run, without a leading M; the losses and metrics are [1] then. The module of a
    stack is given a loss that is cheaper for it, where there is one for this task.
    """

    def __init__(
        self, module: LossModule, workload: Workload, *, shared: bool, compile: bool = False, stacked: bool = True
    ) -> None:
        if stacked and enabled("stacked_loss") and (loss := stacked_loss(workload)) is not None:
            module.replace_loss(loss)
        self.module = module
        self.shared = shared
        self._stacked = stacked
        self._built_in = workload.built_in
        self._wants_metrics = workload.train_metrics
        self._compile = compile
        self.trainable = [name for name, value in module.named_parameters() if value.requires_grad]
        self.non_trainable = [name for name, value in module.named_parameters() if not value.requires_grad]
        self.non_trainable += [name for name, _ in module.named_buffers()]
        self._programs: dict[Any, _Program] = {}
        self._image_layout: Callable[[], AbstractContextManager[Any]] = (
            RunsAmongChannels if enabled("channels") else contextlib.nullcontext
        )
        self._start: dict[str, Tensor] = {}
        self._unused: frozenset[str] | None = None
        self._checked: set[Any] = set()
        # Does a training step draw random numbers? None until one was recorded.
        self.random: bool | None = None

    def freeze_unused(self, params: Sequence[Tensor], non_trainable: Sequence[Tensor], batch: Any) -> None:
        """Count parameters that get no gradient among the fixed ones: torch.optim does not touch them either.

        To be called with the values before training, if at all, and before anything else.
        """
        values = zip((*self.trainable, *self.non_trainable), (*params, *non_trainable), strict=True)
        self._start = {name: (value[:1] if self._stacked else value).clone() for name, value in values}
        unused = self._unused = self._without_gradient(params, non_trainable, batch)
        self._sort(lambda name: name not in unused)
        self._checked = {layout_of(batch)}

    def _sort(self, is_trainable: Callable[[str], bool]) -> None:
        self.trainable = [name for name, value in self.module.named_parameters() if value.requires_grad]
        self.trainable = [name for name in self.trainable if is_trainable(name)]
        frozen = [name for name, _ in self.module.named_parameters() if name not in self.trainable]
        self.non_trainable = frozen + [name for name, _ in self.module.named_buffers()]

    def _without_gradient(
        self, params: Sequence[Tensor], non_trainable: Sequence[Tensor], batch: Any
    ) -> frozenset[str]:
        """The trainable parameters that this batch gives no gradient."""
        leaves, spec = tree_flatten(batch)
        step = self._train_step(leaves, spec, [])
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        with self._modes(True):
            out = step(*(value.clone() for value in (*params, *non_trainable, *tensors)))
        grads = out[len(out) - len(self.trainable) :]
        return frozenset(name for name, grad in zip(self.trainable, grads, strict=True) if grad is None)

    def _same_unused(self, params: Sequence[Tensor], non_trainable: Sequence[Tensor], batch: Any) -> None:
        """Raises TraceError if batches of a new layout give gradients to other parameters than the first."""
        if self._unused is None or layout_of(batch) in self._checked:
            return
        self._checked.add(layout_of(batch))
        values = dict(zip((*self.trainable, *self.non_trainable), (*params, *non_trainable), strict=True))
        trainable = self.trainable
        self._sort(lambda name: True)
        try:
            trained, rest = ([values[name] for name in names] for names in (self.trainable, self.non_trainable))
            with torch.random.fork_rng(devices=[]):
                unused = self._without_gradient(trained, rest, batch)
        finally:
            self._sort(lambda name: name in trainable)
        if unused != self._unused:
            raise trace.TraceError("uses some of its parameters for some batches only")

    def train(self, params: Sequence[Tensor], non_trainable: Sequence[Tensor], batch: Any) -> Result:
        """Losses and gradients of one batch; buffers among `fixed` are updated in place."""
        return self._run(True, params, non_trainable, batch)

    def evaluate(self, params: Sequence[Tensor], non_trainable: Sequence[Tensor], batch: Any) -> Result:
        """Losses and metrics of one batch, the same for all runs, in evaluation mode."""
        return self._run(False, params, non_trainable, batch)

    def graph(
        self,
        params: Sequence[Tensor],
        non_trainable: Sequence[Tensor],
        batch: Any,
        *,
        training: bool = True,
        strict: bool = False,
    ) -> trace.Graph:
        """The recording of a training step or evaluation, not yet rewritten: for counting or comparing what it does.

        `strict`: raise TraceError for what cannot be repeated.
        """
        leaves, spec = tree_flatten(batch)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        build = self._train_step if training else self._eval_step
        return self._record(training, build(leaves, spec, []), (*params, *non_trainable, *tensors), strict=strict)

    def _record(
        self, training: bool, step: Callable[..., Any], inputs: Sequence[Tensor], strict: bool = True
    ) -> trace.Graph:
        def recorded() -> trace.Graph:
            return trace.record(step, *(trace.copied(value) for value in inputs), strict=strict)

        with self._modes(training):
            graph = recorded()
            if self._stacked or not graph.draws_by_layout:
                return graph
            with self._in_planes():
                return recorded()

    def _run(self, training: bool, params: Sequence[Tensor], non_trainable: Sequence[Tensor], batch: Any) -> Result:
        runs = params[0].shape[0] if params and self._stacked else 0
        if type(batch) is tuple and all(type(leaf) is Tensor for leaf in batch):
            tensors: Sequence[Tensor] = batch
        else:
            tensors = [leaf for leaf in tree_flatten(batch)[0] if isinstance(leaf, Tensor)]
        key = (training, runs, layout_of(batch))
        program = self._programs.get(key)
        if program is None:
            program = self._programs[key] = self._program(training, params, non_trainable, batch)
        if program.recorded:
            with torch.no_grad():
                out = program.call(*params, *non_trainable, *tensors)
        else:
            out = program.call(*params, *non_trainable, *tensors)
        names = program.names
        return Result(out[0], dict(zip(names, out[1:], strict=False)), list(out[1 + len(names) :]), program.own)

    def _program(
        self, training: bool, params: Sequence[Tensor], non_trainable: Sequence[Tensor], batch: Any
    ) -> _Program:
        if training:
            self._same_unused(params, non_trainable, batch)
        leaves, spec = tree_flatten(batch)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        names: list[str] = []
        build = self._train_step if training else self._eval_step
        step = build(leaves, spec, names, self._masks(training, params, non_trainable, batch))
        runs = params[0].shape[0] if params and self._stacked else 0
        if not enabled("replay") or sum(key[1] == runs for key in self._programs) >= MANY_SHAPES:
            self.random = True
            return _Program(self._eager(step, training), names, recorded=False)
        inputs = (*params, *non_trainable, *tensors)
        cuda = sorted({value.device.index or 0 for value in inputs if value.is_cuda})
        # What is drawn here must not be missing from the step that comes after.
        with torch.random.fork_rng(devices=cuda, device_type="cuda"):
            try:
                graph = self._record(training, step, inputs)
            except trace.NotRepeatableError:
                self.random = True  # which is not known of a step that is not recorded
                return _Program(self._eager(step, training), names, recorded=False)
            if self._stacked:
                vectors.fill_vectors(graph)
            checks = (*self._untrained((*params, *non_trainable)), *tensors)
            call, own = passes.program(
                graph, checks, runs=runs if self._stacked else None, inductor=self._compile and training
            )
        if training:
            self.random = bool(self.random) or graph.random
        return _Program(call, names, recorded=True, own=frozenset(output - 1 - len(names) for output in own))

    def _untrained(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Values as before training, other ones for each run, that lie as `values` do: `values` may have overflowed,
        and then tell nothing about a rewrite. What is right must not depend on when a step was recorded."""
        found = []
        for name, value in zip((*self.trainable, *self.non_trainable), values, strict=True):
            start = self._start.get(name, value)
            if start.is_floating_point() and self._stacked:
                shrunk = torch.linspace(1.0, 0.9, len(value), dtype=start.dtype, device=start.device)
                start = start * shrunk.view(-1, *[1] * (value.ndim - 1))
            found.append(trace.copied(value).copy_(start))
        return found

    def _eager(self, step: Callable[..., Any], training: bool) -> Callable[..., Any]:
        def call(*inputs: Tensor) -> Any:
            with self._modes(training), contextlib.nullcontext() if self._stacked else self._in_planes():
                return step(*inputs)

        return call

    def _masks(
        self, training: bool, params: Sequence[Tensor], non_trainable: Sequence[Tensor], batch: Any
    ) -> Sequence[by_run.Layout]:
        """How the dropout masks of one run lie in memory when it is computed alone, in plain torch."""
        if not self._stacked or self._built_in or any(value.is_cuda for value in params):
            return ()  # CUDA fills a mask in another way
        leaves, spec = tree_flatten(batch)
        part = [leaf[0] if not self.shared and training and isinstance(leaf, Tensor) else leaf for leaf in leaves]
        first = {
            name: value[0].detach().clone().requires_grad_(training and name in self.trainable)
            for name, value in zip((*self.trainable, *self.non_trainable), (*params, *non_trainable), strict=True)
        }
        noted = by_run.NotedMasks()
        before = self.module.training
        self.module.train(training)
        try:
            with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(training), noted:
                given = tree_unflatten([leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in part], spec)
                functional_call(self.module, first, tuple(given))
        finally:
            self.module.train(before)
        return noted.layouts

    def _train_step(
        self, leaves: list[Any], spec: Any, names: list[str], masks: Sequence[by_run.Layout] = ()
    ) -> Callable[..., list[Tensor | None]]:
        count = len(self.trainable)
        stacked = None if self.shared else 0

        def step(*inputs: Tensor) -> list[Tensor | None]:
            params = [value.detach().requires_grad_() for value in inputs[:count]]
            losses, metrics = self._forward(params, inputs[count:], leaves, spec, stacked, masks)
            names[:] = metrics if self._wants_metrics else []
            # Of the sum, since torch imports sympy (a third of a second) to look at gradients that it is given.
            grads = torch.autograd.grad(losses.sum(), params, allow_unused=True)
            return [losses.detach(), *(metrics[name].detach() for name in names), *grads]

        return step

    def _eval_step(
        self, leaves: list[Any], spec: Any, names: list[str], masks: Sequence[by_run.Layout] = ()
    ) -> Callable[..., list[Tensor | None]]:
        count = len(self.trainable)

        @torch.no_grad()
        def step(*inputs: Tensor) -> list[Tensor | None]:
            losses, metrics = self._forward(inputs[:count], inputs[count:], leaves, spec, None, masks)
            names[:] = metrics
            return [losses, *metrics.values()]

        return step

    def _forward(
        self,
        params: Sequence[Tensor],
        rest: Sequence[Tensor],
        leaves: list[Any],
        spec: Any,
        stacked: int | None,
        masks: Sequence[by_run.Layout],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The vmapped module: `rest` are the fixed values, then the tensors of the batch."""
        non_trainable, tensors = rest[: len(self.non_trainable)], rest[len(self.non_trainable) :]
        weights = dict(zip((*self.trainable, *self.non_trainable), (*params, *non_trainable), strict=True))

        def one(weights: Mapping[str, Tensor], tensors: Sequence[Tensor]) -> Any:
            iterator = iter(tensors)
            filled = [next(iterator) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            return functional_call(self.module, dict(weights), tuple(tree_unflatten(filled, spec)))

        with self._image_layout():
            if not self._stacked:
                loss, metrics = one(weights, tensors)
                return loss.reshape(1), {name: value.reshape(1) for name, value in metrics.items()}
            with contextlib.nullcontext() if self._built_in else by_run.ByRun(masks):
                return vmap(one, in_dims=(0, stacked), randomness="same")(weights, list(tensors))

    @contextlib.contextmanager
    def _in_planes(self) -> Iterator[None]:
        """Images lie as the model lays them, so that dropout masks, drawn in the order of memory, are its own."""
        before, self._image_layout = self._image_layout, contextlib.nullcontext
        try:
            yield
        finally:
            self._image_layout = before

    @contextlib.contextmanager
    def _modes(self, training: bool) -> Iterator[None]:
        before = self.module.training
        self.module.train(training)
        try:
            with _quiet() if self._stacked else contextlib.nullcontext():
                yield
        finally:
            self.module.train(before)


@dataclass(frozen=True, slots=True)
class _Program:
    call: Callable[..., Sequence[Any]]
    names: list[str]
    recorded: bool
    own: frozenset[int] = frozenset()  # positions among the gradients


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Attention in plain operations, which have batching rules, and no slow path per run in the dark."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*batching rule.*")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def stacked_loss(workload: Workload) -> Callable[[Any, Any], Tensor] | None:
    """A loss that stands in for that of the task in a stack, or None where the task's own must be used.

    It stands in for `cross_entropy` with all its defaults, where every target is known to be a class number: torch's
    own raises an error for others, and this one must not hide it.
    """
    loss = workload.task.loss
    plain = isinstance(loss, nn.CrossEntropyLoss) and type(loss) is nn.CrossEntropyLoss and _is_default(loss)
    if loss is None or not (plain or loss in (base.cross_entropy, F.cross_entropy)) or not workload.shared_batches:
        return None
    targets = [split.tensors[-1] for split in workload.splits.values() if hasattr(split, "tensors")]
    if len(targets) < len(workload.splits) or any(target.dtype != torch.int64 for target in targets):
        return None
    if min(int(target.min()) for target in targets) < 0:
        return None
    highest = max(int(target.max()) for target in targets)
    flat = loss is base.cross_entropy

    def stands_in(output: Tensor, target: Tensor) -> Tensor:
        if (not flat and output.ndim != 2) or highest >= output.shape[-1]:
            return loss(output, target)
        return cross_entropy(output, target)

    return stands_in


def _is_default(loss: nn.CrossEntropyLoss) -> bool:
    return loss.weight is None and loss.ignore_index == -100 and loss.reduction == "mean" and loss.label_smoothing == 0


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy in nats; output (..., C), target (...) of class numbers from 0 to C - 1.

    Classes come first: a softmax over few neighbouring numbers is an order of magnitude slower. `where` selects, so an
    infinite log-probability of another class does not turn the sum into nan. Without it training takes 38 % longer on
    workload a of `python -m tests.bench.tricks`, 13 % on b (2026-11).
    """
    logits_CN = output.reshape(-1, output.shape[-1]).transpose(0, 1)
    log_CN = torch.log_softmax(logits_CN, 0)
    classes = torch.arange(output.shape[-1], device=target.device).unsqueeze(1)
    picked = torch.where(target.reshape(-1) == classes, log_CN, 0.0)
    return picked.sum() / -target.numel()
