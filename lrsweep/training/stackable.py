"""Can the runs of a workload be trained together? Found out before training; the answer is a plain sentence or None.

Tasks, models and optimizers of our own are proven by the tests. Of the user's, what can be seen is looked at
(guards.py, user_state.py), and some steps are made alone, under observation, and stacked. None of it is a proof: what
passes is audited while it trains (audit.py), and what does not is trained in plain torch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lrsweep.compiler import trace
from lrsweep.compiler.torch_private import tree_flatten
from lrsweep.errors import UsageError, WrongInSpec
from lrsweep.training import guards, isolation, mistakes, reasons, update_rules, user_names, user_state
from lrsweep.training.costs import Counter
from lrsweep.training.data import DatasetSplit, map_tensors, same_batch
from lrsweep.training.loss_module import LossModule
from lrsweep.training.observation import Observation
from lrsweep.training.recorder import versions
from lrsweep.training.stepper import Stepper
from lrsweep.training.workload import Workload

if TYPE_CHECKING:
    from lrsweep.plan import OptimizerSetting

SEEDS = (0, 1)  # of the trial's two runs
RATE = 0.01  # of its gradient descent
# What two ways of the same arithmetic may differ by, relative to the larger one's size.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4}
BFLOAT16_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class Reason:
    """Why runs train one at a time; `raised`: the user's code raises when a run is alone, too."""

    text: str
    raised: bool = False

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Findings:
    """What is known of a workload before it trains.

    `reason`: why its runs train one at a time whatever their optimizer, None if they can be trained together. `mixes`:
    runs of several seeds, whose batches differ, may share a group. `warnings` are sentences for the user.
    """

    reason: Reason | None = None
    mixes: bool = True
    warnings: tuple[str, ...] = ()


TOO_LARGE = Reason("training these runs together would not be faster")
DRAWS_BY_LAYOUT = (
    "draws random numbers into tensors that do not lie in order in memory (transposed ones, for example), which would "
    "be others in a group; call .contiguous() before"
)


class _Limit(Exception):
    """Why the runs train alone: the end of the sentence `the model ...`, or of another subject."""

    def __init__(self, text: str = "", subject: str = "the model") -> None:
        super().__init__(text)
        self.subject = subject


class _TooLarge(_Limit):
    """The step of one run keeps a core busy."""


class _Broken(Exception):
    """The model cannot even be trained by itself."""


class _Otherwise(_Limit):
    """The stack came to other numbers."""


def stack_reason(workload: Workload, setting: OptimizerSetting) -> Reason | None:
    """Why runs of this workload and optimizer setting train one at a time; None if they can be trained together."""
    if ":" not in setting.name:
        text = update_rules.ALONE.get(setting.name)
        return findings(workload).reason if text is None else Reason(text)
    return findings(workload).reason or workload.once(
        ("optimizer", setting.key), lambda: _optimizer_reason(workload, setting)
    )


def _optimizer_reason(workload: Workload, setting: OptimizerSetting) -> Reason | None:
    """Look at a class of the user's, built over the weights of a model that is then thrown away, and make a step."""
    try:
        with workload.user_code():
            module = workload.build_model(SEEDS[0])
            workload.seed_step(SEEDS[0], 0)
            module(*workload.batch(SEEDS[0], 0))[0].backward()
            text = guards.of_optimizer(setting.name, setting.args, module, workload.workload_spec.base_dir)
    except WrongInSpec:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - user code may raise anything
        text = reasons.short(f"an error in the trial of the optimizer: {isolation.describe(error)}")
        return Reason(text, raised=True)
    finally:
        workload.release()
    return None if text is None else Reason(text)


def workload_reason(workload: Workload) -> Reason | None:
    """The same whatever the optimizer; where it is None, a step can also be recorded."""
    return findings(workload).reason


def findings(workload: Workload) -> Findings:
    """Try the model, the loss and the batches of a workload of the user's, once: it runs their code.

    Raises UsageError if the loss has parameters of its own, which nothing would train.
    """
    return Findings() if workload.built_in else workload.once("findings", lambda: _findings(workload))


def _findings(workload: Workload) -> Findings:
    trial = _Trial(workload)
    try:
        with workload.user_code():
            trial.run()
    except UsageError:
        raise
    except _Broken as error:
        return Findings(Reason(str(error), raised=True))
    except _TooLarge:
        return Findings(TOO_LARGE, warnings=tuple(trial.warnings))
    except (_Limit, trace.TraceError) as limit:
        subject = limit.subject if isinstance(limit, _Limit) else "the model"
        return Findings(Reason(f"{subject} {limit}"), warnings=tuple(trial.warnings))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - user code and vmap may raise anything
        return Findings(Reason(reasons.explain(error)), warnings=tuple(trial.warnings))
    return Findings(mixes=trial.mixes, warnings=tuple(trial.warnings))


@dataclass
class _Trial:
    """Two runs of two seeds, some steps each."""

    workload: Workload
    mixes: bool = True
    warnings: list[str] = field(default_factory=list)

    def run(self) -> None:
        workload = self.workload
        # The first two batches, and the last of an epoch, which may be smaller.
        steps = sorted({0, 1, workload.steps_per_epoch - 1} & set(range(workload.total_steps)))
        observation = Observation()
        self.warnings += mistakes.not_finite(workload.task)
        with _by_itself():
            before = self._data()
            guards.refuse_shared(self._outside())
            guards.refuse_shared(before, tensors=False)  # which may be there to be read
            batches, checks, drawn = self._first_batches(steps)
            modules = self._observed(batches, checks, observation)
        self._look_at_data(steps, before if drawn else None)
        self._told_of_sums(modules[0], checks)
        if observation.found:
            subject, text = observation.found[0]
            raise _Limit(text, subject)
        by_layout = self._same_recordings(modules, batches, checks)
        try:
            self._compare([batches[0], batches[0]], checks, shared=True)
        except _Otherwise as limit:
            raise _Limit(DRAWS_BY_LAYOUT) if by_layout else limit from None
        tensors = not any(isinstance(split, DatasetSplit) for split in workload.splits.values())
        self.mixes = tensors and workload.shared_batches and not observation.pads
        if self.mixes:
            try:
                self._compare(batches, checks, shared=False)
            except Exception:  # noqa: BLE001 - whatever it is, it is for want of equal batches
                self.mixes = False

    def _data(self) -> user_state.Snapshot | None:
        """What the Datasets keep, None where the data are tensors."""
        of_datasets = any(isinstance(split, DatasetSplit) for split in self.workload.splits.values())
        task = self.workload.task
        return user_state.snapshot([task.train, task.val]) if of_datasets else None

    def _first_batches(self, steps: Sequence[int]) -> tuple[list[list[Any]], Any, bool]:
        """Batches per seed, one for evaluation, and whether fetching them draws random numbers."""
        drawn = []

        def fetched(fetch: Callable[[], Any], *stream: Any) -> Any:
            isolation.seed_all(isolation.stream_seed("data", *stream))  # as is done before a Dataset is asked
            before = torch.default_generator.get_state().tolist(), user_state.random_state()
            batch = fetch()
            drawn.append(before != (torch.default_generator.get_state().tolist(), user_state.random_state()))
            return batch

        batches = [[fetched(partial(self.workload.batch, seed, step), seed, step) for step in steps] for seed in SEEDS]
        checks, _ = fetched(lambda: next(self.workload.eval_batches("val")), "val", 0, 0, 0)
        return batches, checks, any(drawn)

    def _observed(self, batches: Sequence[Sequence[Any]], checks: Any, observation: Observation) -> list[LossModule]:
        """Train both runs, each alone in plain torch, and look for what is kept or read from elsewhere."""
        modules, outside, built = [], [self._outside()], []
        used: list[tuple[bool, ...]] = []
        for seed, of_seed in zip(SEEDS, batches, strict=True):
            module = self.workload.build_model(seed)
            modules.append(module)
            built.append(tuple(module.tensors()))
            mistakes.refuse_untrainable(module.model, self.workload)
            if module.counts_steps:
                raise _Limit("asks for the number of the step", "the step of the task")
            if limit := guards.of_model(module) or next(filter(None, map(guards.of_batch, (*of_seed, checks))), None):
                raise _Limit(limit)
            inside = []
            for number, batch in enumerate(of_seed):
                self.workload.seed_step(seed, number)
                for parameter in module.parameters():
                    parameter.grad = None
                self._told_of_one(module, batch)
                first = not used
                counter = Counter()
                given = map_tensors(Tensor.clone, batch)
                with observation.watching(), counter if first else nullcontext():
                    result, _ = module.train()(*given)
                    mistakes.backward(result, module, self.workload.task)
                self._stop_if_written(given)
                if first:
                    self._stop_if_too_large(counter, module, checks)
                loss = result.item()
                module.descend(RATE)
                if not math.isfinite(loss):
                    raise _Limit("starts from a loss that is not finite, so training runs together cannot be checked")
                used.append(tuple(parameter.grad is not None for parameter in module.parameters()))
                buffers = versions(module.tensors().values())
                given = map_tensors(Tensor.clone, checks)
                with torch.no_grad(), observation.watching():
                    module.eval()(*given)
                self._stop_if_written(given)
                if versions(module.tensors().values()) != buffers:
                    raise _Limit("writes into a parameter or a buffer in evaluations")
                inside.append(user_state.snapshot([module.model, *module.functions]))
                outside.append(self._outside())
            _must_stay(inside[1 if len(inside) > 2 else 0 :])  # of the model itself, what settles in the first step may
        _must_stay(outside)
        if any(tuple(module.tensors()) != names for module, names in zip(modules, built, strict=True)):
            raise _Limit("makes a parameter or a buffer in its first step")
        self._refuse_parameters(outside[-1], modules)
        if len(set(used)) > 1:
            raise _Limit("uses some of its parameters for some batches only")
        return modules

    def _stop_if_written(self, batch: Any) -> None:
        """Raises _Limit if this copy of a batch was written into, whose tensors may be the Dataset's own."""
        leaves = [leaf for leaf in tree_flatten(batch)[0] if isinstance(leaf, Tensor)]
        if any(leaf._version for leaf in leaves) and not self.workload.shared_batches:
            raise _Limit("writes into batches that may be the memory of the Dataset")

    def _stop_if_too_large(self, counter: Counter, module: LossModule, checks: Any) -> None:
        """Raises _TooLarge where the rest of the trial, many steps, would change nothing."""
        if counter.sizes(float(sum(parameter.nbytes for parameter in module.parameters()))).too_large:
            self._told_of_sums(module, checks)
            self._refuse_parameters(self._outside(), [module])
            raise _TooLarge

    def _told_of_one(self, module: LossModule, batch: Any) -> None:
        """Raises WrongInSpec if the last batch of an epoch holds one example, and the model cannot train on one."""
        leaves = [leaf for leaf in tree_flatten(batch)[0] if isinstance(leaf, Tensor)]
        workload = self.workload
        if workload.n_train % workload.batch_size != 1 or not leaves or leaves[0].shape[:1] != (1,):
            return
        try:
            copy.deepcopy(module).train()(*map_tensors(Tensor.clone, batch))
        except ValueError as error:
            if "more than 1 value" not in str(error):
                return
            size = workload.workload_spec.train["batch_size"]
            text = (
                f"the last batch of each epoch holds one example ({workload.n_train} examples in batches of {size}), "
                "and a normalization layer cannot be trained on one; set train.drop_last: true, or another size"
            )
            raise WrongInSpec((("train", "batch_size"), text)) from error

    def _outside(self) -> user_state.Snapshot:
        """What the user's functions keep, those of the data included where they can be looked through."""
        return user_state.snapshot([self.workload.builder, *self.workload.task.functions])

    def _refuse_parameters(self, outside: user_state.Snapshot, modules: Sequence[LossModule]) -> None:
        trained = {id(value) for module in modules for value in module.parameters()}
        for value in outside.alive:
            if isinstance(value, Tensor) and value.is_leaf and value.grad is not None and id(value) not in trained:
                raise UsageError(
                    f"task {self.workload.workload_spec.task['name']}: the loss depends on a tensor of shape "
                    f"{list(value.shape)} that requires a gradient and is no parameter of the model, so nothing would "
                    "train it; make it a parameter of the model, or call requires_grad_(False)"
                )

    def _look_at_data(self, steps: Sequence[int], before_first: user_state.Snapshot | None) -> None:
        """A Dataset must give the same batch for the same seed and step, whatever was asked of it in between.

        `before_first`: of the Datasets, if what they then filled may have been drawn at random.
        """
        workload = self.workload
        if workload.shared_batches and not any(isinstance(split, DatasetSplit) for split in workload.splits.values()):
            return
        before = self._data()

        def batches() -> list[Any]:
            trained = [workload.batch(SEEDS[0], step) for step in steps]
            return [*trained, *(batch for batch, _ in workload.eval_batches("val", SEEDS[0], 1))]

        first = batches()
        workload.batch(SEEDS[1], 0)
        if not same_batch(first, batches()):
            guards.refuse_shared(self._data())
            if workload.task.workers:
                told = "the Dataset gives other examples when it is asked again, so its batches cannot be prepared by "
                told += "workers=; let it draw from torch, numpy or random and keep nothing between calls, or leave "
                raise mistakes.refused(f"{told}workers= out", workload.task.train, workload.task)
            raise _Limit("is given other batches for the same seed and step: the Dataset keeps something between calls")
        after = self._data()
        if after and any(one is not None and not one.same(after) for one in (before, before_first)):
            guards.refuse_shared(after)
            raise _Limit("is trained on a Dataset that keeps something between calls")

    def _told_of_sums(self, module: LossModule, checks: Any) -> None:
        """A loss that sums over the batch is a rate that depends on the size of the batch."""
        if not self.workload.shared_batches or not checks or not all(isinstance(leaf, Tensor) for leaf in checks):
            return
        try:
            with torch.no_grad():
                module.eval()
                twice = [torch.cat([leaf, leaf]) for leaf in checks]
                losses = [float(module(*map_tensors(Tensor.clone, batch))[0]) for batch in (checks, twice)]
        except Exception:  # noqa: BLE001 - not every model takes batches of another size
            return
        if losses[0] and abs(losses[1] / losses[0] - 2) < 1e-3:
            self.warnings.append(
                "the loss is a sum over the batch, not a mean: the same rate takes larger steps on larger batches, and "
                "train_loss and val_loss are sums over different numbers of examples; divide it by the batch size"
            )

    def _same_recordings(self, modules: Sequence[LossModule], batches: Sequence[Sequence[Any]], checks: Any) -> bool:
        """The user's Python must do the same for two models and two batches. Returns whether it draws random numbers
        into tensors that do not lie in order."""
        graphs = []
        for seed, module, of_seed in zip(SEEDS, modules, batches, strict=True):
            stepper = Stepper(module, self.workload, stacked=False, shared=True)
            values = module.tensors()
            params = [values[name].detach() for name in stepper.trainable]
            rest = [values[name].detach() for name in stepper.non_trainable]
            self.workload.seed_step(seed, 0)
            graphs.append(
                [stepper.graph(params, rest, of_seed[0], strict=True),
                 stepper.graph(params, rest, checks, training=False, strict=True)]
            )  # fmt: skip
        if not all(trace.same(one, other) for one, other in zip(*graphs, strict=True)):
            raise _Limit("does not do the same for every batch and every seed")
        return any(graph.draws_by_layout for graph in graphs[0])

    def _compare(self, batches: Sequence[Sequence[Any]], checks: Any, *, shared: bool) -> None:
        """Stacked and alone. The user's functions see the dtype of the spec; float64 they see only where that cannot
        tell rounding apart."""
        workload = self.workload
        with _by_itself():
            modules = [workload.build_model(seed) for seed in SEEDS]
        bfloat16 = workload.workload_spec.train["dtype"] == "bfloat16"
        tolerance = BFLOAT16_TOLERANCE if bfloat16 else TOLERANCE[workload.dtype]
        try:
            _compare(*_both_ways(modules, batches, checks, workload, shared), tolerance)
        except _Otherwise as limit:
            if workload.dtype == torch.float64:
                raise
            try:
                exact = [copy.deepcopy(module).double() for module in modules]
                batches, checks = map_tensors(
                    lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, (list(batches), checks)
                )
                torch.set_default_dtype(torch.float64)
                results = _both_ways(exact, batches, checks, workload, shared)
            except Exception:  # noqa: BLE001 - not every model can be cast; then its own precision must do
                raise limit from None
            finally:
                torch.set_default_dtype(workload.dtype)
            _compare(*results, BFLOAT16_TOLERANCE if bfloat16 else TOLERANCE[torch.float64])


def _must_stay(snapshots: Sequence[user_state.Snapshot]) -> None:
    """What changes is state."""
    last, who = snapshots[-1], "the code"  # of the model, the loss or the step: they may share what they keep
    if last.hidden:
        raise _Limit(f"keeps {user_names.of_hidden(last)}, into which lrsweep cannot look", who)
    if not last.full:
        raise _Limit("keeps more Python objects than lrsweep looks through", who)
    for one in snapshots:
        if not one.same(last):
            name = user_names.of_change(one, last)
            raise _Limit("changes Python state between steps" + (f": {name}" if name else ""), who)


def _both_ways(
    modules: Sequence[LossModule], batches: Sequence[Sequence[Any]], checks: Any, workload: Workload, shared: bool
) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    with _by_itself():
        alone = _alone([copy.deepcopy(module) for module in modules], batches, checks, workload)
    return alone, _stacked([copy.deepcopy(module) for module in modules], batches, checks, workload, shared)


@contextmanager
def _by_itself() -> Iterator[None]:
    """What is raised within is not for want of a stack."""
    try:
        yield
    except (_Limit, UsageError):
        raise
    except (Exception, SystemExit) as error:
        if limit := reasons.operator(error):
            raise _Limit(limit) from error
        text = reasons.short(f"an error in the trial of the model: {isolation.describe(error)}")
        raise _Broken(text) from error


def _alone(
    modules: Sequence[LossModule], batches: Sequence[Sequence[Any]], checks: Any, workload: Workload
) -> list[list[Tensor]]:
    """Losses, weights and buffers of every run after gradient descent, and an evaluation of it."""
    results = []
    for module, of_run in zip(modules, batches, strict=True):
        values: list[Tensor] = []
        for step, batch in enumerate(of_run):
            workload.seed_step(0, step)
            for parameter in module.parameters():
                parameter.grad = None
            loss, metrics = module.train()(*map_tensors(Tensor.clone, batch))
            loss.backward()
            values += [loss.detach(), *metrics.values()]
            module.descend(RATE)
        with torch.no_grad():
            workload.seed_step(0, len(of_run))
            loss, metrics = module.eval()(*map_tensors(Tensor.clone, checks))
        values += [loss, *metrics.values(), *module.parameters(), *module.buffers()]
        results.append([value.detach().clone() for value in values])
    return results


def _stacked(
    modules: Sequence[LossModule],
    batches: Sequence[Sequence[Any]],
    checks: Any,
    workload: Workload,
    shared: bool,
) -> list[list[Tensor]]:
    stepper = Stepper(modules[0], workload, shared=shared)
    each = [module.tensors() for module in modules]

    def stack(names: Sequence[str]) -> list[Tensor]:
        return [torch.stack([values[name].detach() for values in each]) for name in names]

    def batch_of(step: int) -> Any:
        parts = [map_tensors(Tensor.clone, of_run[step]) for of_run in batches]
        return parts[0] if shared else tuple(torch.stack(leaves) for leaves in zip(*parts, strict=True))

    workload.seed_step(0, 0)
    stepper.freeze_unused(stack(stepper.trainable), stack(stepper.non_trainable), batch_of(0))
    params, non_trainable, values = stack(stepper.trainable), stack(stepper.non_trainable), []
    for step in range(len(batches[0])):
        workload.seed_step(0, step)
        result = stepper.train(params, non_trainable, batch_of(step))
        values += [result.losses, *result.metrics.values()]
        for param, grad in zip(params, result.grads, strict=True):
            param.sub_(grad, alpha=RATE)
    workload.seed_step(0, len(batches[0]))
    result = stepper.evaluate(params, non_trainable, map_tensors(Tensor.clone, checks))
    names = dict(zip((*stepper.trainable, *stepper.non_trainable), (*params, *non_trainable), strict=True))
    values += [result.losses, *result.metrics.values()]
    values += [names[name] for name, _ in (*modules[0].named_parameters(), *modules[0].named_buffers())]
    return [[value[run] for value in values] for run in range(len(modules))]


def _compare(alone: list[list[Tensor]], stacked: list[list[Tensor]], tolerance: float) -> None:
    for mine, theirs in zip(alone, stacked, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            one, other = one.double(), other.double()
            finite = one[one.isfinite()]
            size = max(float(finite.abs().max()) if finite.numel() else 0.0, 1e-6)
            if one.numel() and not torch.allclose(one, other, rtol=0, atol=tolerance * size, equal_nan=True):
                raise _Otherwise("gives different results when runs are trained together")
    if not all(math.isfinite(float(value.double().sum())) for values in alone for value in values[:1]):
        raise _Limit("starts from a loss that is not finite, so training runs together could not be checked")
