"""What is told of the speed of each worker."""

from __future__ import annotations

import io
from dataclasses import replace

from lrsweep.run_result import RunResult
from lrsweep.sweep import progress
from lrsweep.sweep.progress import PlainReporter, Update
from lrsweep.sweep.throughput import Meter, Throughput, summed
from lrsweep.workers.messages import Died, Ended, Taken, Ticked, Trained
from tests.workers.test_executors import job


def test_each_worker_is_measured_while_it_has_a_job() -> None:
    now = 100.0
    meter = Meter(lambda: now)
    one, other, third = job("a", "b"), job("c"), job("d")
    meter.hear(one, Taken("first"))
    meter.hear(other, Taken("second"))
    now = 110.0
    meter.hear(one, Ticked(40))
    meter.hear(one, Trained(RunResult(run_id="a", status="ok")))
    meter.hear(other, Ticked(7))
    meter.hear(other, Died("gone"))
    now = 120.0
    meter.hear(one, Ticked(20))
    meter.hear(one, Ended())
    now = 200.0
    meter.hear(third, Taken("first"))
    now = 201.0
    assert meter.found() == (
        Throughput(worker="first", runs=1, optimizer_steps=60, seconds=21.0),
        Throughput(worker="second", runs=0, optimizer_steps=7, seconds=10.0),
    )


def test_passes_over_the_plan_are_added_up() -> None:
    one = Throughput(worker="first", runs=1, optimizer_steps=60, seconds=21.0)
    other = Throughput(worker="second", runs=2, optimizer_steps=6, seconds=2.0)
    assert summed([one, other, one]) == (Throughput(worker="first", runs=2, optimizer_steps=120, seconds=42.0), other)


def test_the_speed_of_the_slowest_and_the_fastest_worker_is_shown() -> None:
    stream = io.StringIO()
    reporter = PlainReporter(stream, every=0.0)
    update = Update(done=1, total=2, diverged=0, failed=0, run_steps=50, run_steps_total=100)
    first = Throughput(worker="first", optimizer_steps=82_123, seconds=2.0)
    other = Throughput(worker="second", optimizer_steps=10_000, seconds=10.0)
    for throughput in ((), (first,), (first, other), (first, replace(other, seconds=progress.LEAST_SECONDS / 2))):
        reporter.update(replace(update, throughput=throughput))
    ends = [line.partition(" left")[2] for line in stream.getvalue().splitlines()]
    assert ends == ["", ", 41,000 steps/s", ", 1,000 to 41,000 steps/s per worker", ", 41,000 steps/s"]
