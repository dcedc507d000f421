"""One run whose learning rate rises from step to step: what a learning-rate range test trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lrsweep import optimizers
from lrsweep.analysis.lr_finder import Floats, Ramp, must_stop
from lrsweep.errors import LrsweepError, UsageError
from lrsweep.training import isolation
from lrsweep.training.sequential import Trainer
from lrsweep.training.workload import Workload

if TYPE_CHECKING:
    from lrsweep.plan import OptimizerSetting


def train(setting: OptimizerSetting, workload: Workload, seed: int, lrs: Floats) -> Ramp:
    """Train one run of `setting` whose learning rate in step t is `lrs[t]`, until `must_stop` (analysis/lr_finder.py).

    Weights and batches are those of a run of this seed in the sweep; the setting's schedule is not used, and nothing is
    evaluated. Raises UsageError with the place where the user's code raises.
    """
    from lrsweep import plan

    constant = plan.OptimizerSetting(
        name=setting.name,
        args=setting.args,
        schedule={"name": "constant"},
        independent_weight_decay=setting.independent_weight_decay,
        key=setting.key,
    )
    spec, first = workload.workload_spec, float(lrs[0])
    run = plan.Run(run_id="", label="", lr=first, seed=seed, axes=(), workload_spec=spec, setting=constant)
    losses: list[float] = []
    stopped = None
    try:
        with workload.user_code():
            trainer = Trainer(run, workload, fused=False)
            shares = optimizers.shares(trainer.optimizer, first)
            for lr in lrs:
                loss, value = trainer.next_loss()
                losses.append(value)
                stopped = must_stop(losses)
                if stopped is not None:
                    break
                optimizers.set_lr(trainer.optimizer, float(lr), shares)
                trainer.apply(loss)
    except LrsweepError:
        raise
    except Exception as error:
        raise UsageError(f"range test: {isolation.describe(error)}") from error
    finally:
        workload.release()
    return Ramp(lrs=lrs[: len(losses)], losses=np.array(losses), stopped=stopped)
