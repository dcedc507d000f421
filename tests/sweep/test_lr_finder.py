"""The finder: suggestion rules against their vectors, and the ramp against a plain torch loop."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text

from lrsweep.cli import output
from lrsweep.errors import UsageError
from lrsweep.plot import lr_finder as drawing
from lrsweep.plot.style import GREY
from lrsweep.sweep import lr_finder
from lrsweep.training import workload
from lrsweep.training.lr_ramp import Ramp, has_fallen, must_stop, ramp, rates, smoothed, suggestions
from tests.support import tables as fabricate
from tests.support.oracle import run, workload_spec


def curve(lrs: np.ndarray) -> np.ndarray:
    x = lrs / 1e-3
    return 2.3 - 2 * x / (1 + x) + (lrs / 0.1) ** 2


LRS = 10 ** (-7 + 0.1 * np.arange(71))


@pytest.mark.parametrize("change", ["nothing", "nan", "inf", "shift"])
def test_the_vector(change: str) -> None:
    """metrics.md, section 9."""
    losses = curve(LRS) - (5 if change == "shift" else 0)
    if change in ("nan", "inf"):
        losses[-6:] = float(change)
    found = suggestions(LRS, losses)
    assert found.steepest == pytest.approx(1e-3, rel=1e-12)
    assert found.minimum_over_10 == pytest.approx(10**-2.7, rel=1e-12)
    assert found.valley == pytest.approx(10**-4.4, rel=1e-12)
    assert found.slide == pytest.approx(10**-6.4, rel=1e-12)
    assert found.per_unit == pytest.approx(1e-7, rel=1e-12)
    assert found.spread == pytest.approx(3.7, rel=1e-12)


def test_valley_depends_on_where_the_ramp_starts() -> None:
    lrs = 10 ** (-8 + 0.1 * np.arange(81))
    found = suggestions(lrs, curve(lrs))
    assert found.valley == pytest.approx(1e-5, rel=1e-12)
    assert found.steepest == pytest.approx(1e-3, rel=1e-12)


def fastai_valley(lrs: np.ndarray, losses: np.ndarray) -> float:
    """The double loop of fastai's callback/schedule.py, in its own words."""
    n = len(losses)
    max_start, max_end = 0, 0
    lds = [1] * n
    for i in range(1, n):
        for j in range(i):
            if losses[i] < losses[j] and lds[i] < lds[j] + 1:
                lds[i] = lds[j] + 1
            if lds[max_end] < lds[i]:
                max_end = i
                max_start = max_end - lds[max_end]
    sections = (max_end - max_start) / 3
    return float(lrs[max(0, max_start + int(sections) + int(sections / 2))])


def fastai_slide(lrs: np.ndarray, losses: np.ndarray) -> float:
    grad = np.gradient(losses)
    r_idx, l_idx = -1, -16
    found = lrs[l_idx]
    while l_idx >= -len(losses) and abs(grad[r_idx] - grad[l_idx]) > 0.005:
        found = lrs[l_idx]
        r_idx -= 1
        l_idx -= 1
    return float(found)


@pytest.mark.parametrize("seed", range(20))
def test_valley_and_slide_are_fastais(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lrs = 10 ** (-7 + 0.1 * np.arange(60))
    losses = curve(lrs) + rng.choice([0.0, 0.003, 0.1]) * rng.standard_normal(60)
    found = suggestions(lrs, losses)
    assert found.valley == fastai_valley(lrs, losses)
    assert found.slide == fastai_slide(lrs, losses)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=40))
def test_any_losses_give_rates_of_the_ramp_or_nan(losses: list[float]) -> None:
    lrs = np.logspace(-7, 1, 40)[: len(losses)]
    found = suggestions(lrs, losses)
    for rate in (found.steepest, found.minimum_over_10 * 10, found.valley, found.slide, found.per_unit):
        assert math.isnan(rate) or np.isclose(lrs, rate, rtol=1e-12).any()
    assert math.isnan(found.spread) or found.spread >= 0


def test_smoothing_corrects_its_start_and_shifts_with_the_losses() -> None:
    assert smoothed([2.0] * 5) == pytest.approx([2.0] * 5, rel=1e-14)
    losses = np.random.default_rng(0).standard_normal(30)
    expected = [np.average(losses[: i + 1], weights=0.9 ** np.arange(i, -1, -1)) for i in range(30)]
    np.testing.assert_allclose(smoothed(losses), expected, rtol=1e-12)
    np.testing.assert_allclose(smoothed(losses - 100) + 100, expected, atol=1e-12)
    assert np.isnan(smoothed([1.0, math.nan, 1.0])[1:]).all()


@pytest.mark.parametrize("shift", [0.0, -100.0])
def test_the_ramp_stops_on_a_rise_whatever_the_sign_of_the_loss(shift: float) -> None:
    falling = [2.0 - 0.05 * i + shift for i in range(20)]
    assert must_stop(falling) is None
    assert must_stop([*falling, 3.0 + shift]) is None
    stopped = must_stop([*falling, 60.0 + shift])
    assert stopped is not None
    assert "update 21" in stopped


def test_noise_and_the_first_updates_do_not_stop_a_ramp() -> None:
    noisy = (2 + np.random.default_rng(0).standard_normal(200)).tolist()
    assert all(must_stop(noisy[:i]) is None for i in range(1, 201))
    assert must_stop([1.0, 1e6]) is None
    assert must_stop([1.0] * 10 + [1e6]) is not None
    assert must_stop([1.0, math.nan]) == "the loss of update 2 is nan"
    assert must_stop([math.inf]) == "the loss of update 1 is inf"


def test_rates_are_spaced_in_their_logarithm() -> None:
    found = rates(1e-7, 10.0, 9)
    np.testing.assert_allclose(found, [10.0**k for k in range(-7, 2)], rtol=1e-12)
    for low, high, steps in ((0.0, 1.0, 10), (1.0, 1.0, 10), (1e-3, math.inf, 10), (math.nan, 1.0, 10), (0.1, 1.0, 1)):
        with pytest.raises(UsageError, match="range test"):
            rates(low, high, steps)


TASK = """
import torch
from torch import nn
from lrsweep import Task

def data():
    x = torch.randn(96, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, x.sin().sum(1, keepdim=True)

def model():
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

def make(broken=False):
    def loss(output, target):
        if broken:
            raise ValueError("no loss today")
        return ((output - target) ** 2).mean()
    return Task(train=data(), val=data(), model=model, loss=loss)
"""


def ready(folder: Path, name: str = "make", **train: Any) -> tuple[Any, SimpleNamespace]:
    (folder / "mine.py").write_text(TASK)
    made = workload_spec({"name": f"mine.py:{name}"}, batch_size=32, epochs=1, **train)
    made.base_dir = str(folder)
    return workload.build(made), made


def test_the_ramp_is_a_plain_torch_run_with_growing_rates(tmp_path: Path) -> None:
    built, made = ready(tmp_path, clip_norm=1.0)
    setting = run(made, "sgd", momentum=0.9, independent_weight_decay=0.01).setting
    found = ramp(built, setting, 3, low=1e-4, high=1e-1, steps=12)

    namespace: dict[str, Any] = {}
    exec(compile(TASK, "mine.py", "exec"), namespace)
    x, y = namespace["data"]()
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(3)
        model = namespace["model"]()
    finally:
        torch.set_default_dtype(torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    expected = []
    for step, lr in enumerate(np.logspace(-4, -1, 12)):
        epoch, within = divmod(step, 3)
        order = torch.randperm(96, generator=torch.Generator().manual_seed(3 * 1_000_003 + epoch))
        rows = order[32 * within : 32 * within + 32]
        optimizer.zero_grad()
        loss = ((model(x[rows]) - y[rows]) ** 2).mean()
        expected.append(loss.item())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(0.99)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
    np.testing.assert_allclose(found.losses, expected, rtol=1e-12)
    np.testing.assert_allclose(found.lrs, np.logspace(-4, -1, 12), rtol=1e-12)
    assert found.stopped is None


def test_the_ramp_keeps_what_it_saw_when_the_loss_explodes(tmp_path: Path) -> None:
    built, made = ready(tmp_path)
    found = ramp(built, run(made, "sgd").setting, 0, low=1e-3, high=1e6, steps=60)
    assert found.stopped is not None
    assert len(found.lrs) == len(found.losses) < 60
    assert found.losses[-1] > found.losses[0]
    assert suggestions(found.lrs, smoothed(found.losses)).steepest < 10


def test_the_ramp_says_where_the_users_code_broke(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TASK)
    made = workload_spec({"name": "mine.py:make", "broken": True}, epochs=1)
    made.base_dir = str(tmp_path)
    with pytest.raises(UsageError, match=r"no loss today.*mine\.py:\d+"):
        ramp(workload.build(made), run(made, "sgd").setting, 0)


# --- what is told of a ramp -----------------------------------------------------------------------------------------


def found_on(losses: Any, axes: tuple[lr_finder.AxisValue, ...] = ()) -> lr_finder.RangeTest:
    lrs = np.logspace(-7, 1, len(losses))
    line = lr_finder.line("sgd", Ramp(lrs=lrs, losses=np.asarray(losses), stopped=None), None)
    return lr_finder.RangeTest(
        name="r", low=1e-7, high=10.0, steps=len(losses), seed=0, axes=axes, lines=(line,), facts=None, files=()
    )


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


def test_the_picture_says_which_axis_values_it_shows() -> None:
    axes = (lr_finder.AxisValue(axis="train.batch_size", value="256", listed=("16", "256")),)
    assert "at train.batch_size=256" in texts(drawing.range_test(found_on(curve(LRS), axes)))
    assert not any(text.startswith("at ") for text in texts(drawing.range_test(found_on(curve(LRS)))))


def test_a_suggestion_before_the_loss_has_moved_is_a_warning() -> None:
    noise = 0.05 * np.random.default_rng(1).standard_normal(100)
    # The draw of the first batches, which `steepest` takes for the beginning of a fall.
    noise[0], noise[1:4] = 0.12, -0.05
    losses = 2.3 - 2 / (1 + np.exp(-1.5 * (np.linspace(-7, 1, 100) + 2))) + noise  # falls at 1e-2
    found = found_on(losses)
    (line,) = found.lines
    rules = {rule: rate for rule, rate, _ in line.rules}
    assert rules["steepest"] < 1e-6
    assert rules["minimum_over_10"] > 1e-3
    assert {"steepest", "per_unit"} <= line.unmoved
    assert "minimum_over_10" not in line.unmoved
    printed_text = output.range_test(found)
    for rule, rate in rules.items():
        row = next(row for row in printed_text.splitlines() if row.split()[1:2] == [rule])
        assert row.endswith("the loss has not fallen by then") == (rule in line.unmoved), (rule, rate)
    figure = drawing.range_test(found)
    marks = {one.get_marker(): one.get_color() for ax in figure.axes for one in ax.lines if len(one.get_xdata()) == 1}
    assert marks["v"] == marks["x"] == GREY
    assert marks["s"] != GREY
    assert "grey: the loss has not fallen by then" in texts(figure)


def test_where_the_loss_has_moved() -> None:
    lrs = 10.0 ** np.arange(-7, 1)
    ramp = Ramp(lrs=lrs, losses=np.array([2.0, 2.0, 1.99, 1.5, 1.0, 1.0, 3.0, math.nan]), stopped=None)
    smooth = ramp.losses
    assert [has_fallen(lrs, smooth, 0.0, rate) for rate in lrs[:7]] == [False] * 3 + [True] * 4
    assert [has_fallen(lrs, smooth, 0.2, rate) for rate in (1e-4, 5e-4, 1e-3)] == [False, False, True]
    assert not has_fallen(lrs, smooth, 0.0, 1e-9)
    assert not has_fallen(lrs, np.full(8, 2.0), 0.0, 1.0)
    assert not has_fallen(lrs, np.full(8, math.nan), 0.0, 1.0)


def test_every_curve_that_leaves_its_panel_is_marked_where_it_does() -> None:
    for rise, told in ((1.0, "▲ 3 leave"), (0.0, None)):
        lrs = np.logspace(-7, 1, 81)
        found = found_on(2.3 - 2 * lrs / (1e-3 + lrs) + rise * (lrs / 0.1) ** 2)
        medians = [1.0, 0.5, 0.5, 0.5 + 9 * rise]
        facts = fabricate.facts_of_medians([1e-3, 1e-2, 0.1, 1.0], {"sgd": medians}, start=2.3)
        line = dataclasses.replace(found.lines[0], row=facts.rows[0])
        figure = drawing.range_test(dataclasses.replace(found, lines=(line,)))
        ax = figure.axes[0]
        places = [tuple(place) for one in ax.collections for place in np.asarray(one.get_offsets())]
        assert [text for text in texts(figure) if text.endswith("leave")] == ([told] if told else [])
        assert ("first leaves the panel here" in texts(figure)) == bool(told)
        assert len(places) == (3 if told else 0)
        if told:
            top = ax.get_ylim()[1]
            assert {y for _, y in places} == {top}
            raw = next(x for x, y in zip(lrs, line.ramp.losses, strict=True) if x > 0.01 and y > top)
            assert raw / 10**0.1 < places[0][0] <= raw
            share = (top - 0.5) / 9  # of the way from 0.1 to 1, on the axis as it is drawn
            assert places[2][0] == pytest.approx(10 ** (share - 1))


def beside_a_sweep(medians: list[float], start: float, mode: str) -> Any:
    lrs = np.logspace(-7, 1, 81)
    found = found_on(2.3 - 2 * lrs / (1e-3 + lrs))
    facts = fabricate.facts_of_medians([1e-3, 1e-2, 0.1, 1.0], {"sgd": medians}, start=start, mode=mode)
    line = dataclasses.replace(found.lines[0], row=facts.rows[0], best_lr=0.01)
    return drawing.range_test(dataclasses.replace(found, lines=(line,), facts=facts))


def test_an_accuracy_stands_on_an_axis_of_its_own_beside_the_ramps_loss() -> None:
    medians = [0.5, 0.9, 0.8, 0.3]
    figure = beside_a_sweep(medians, 0.1, "max")
    ramp, sweep = figure.axes
    assert "train_loss" in ramp.get_ylabel()
    assert "val_accuracy (final)" in sweep.get_ylabel()
    assert not any(list(line.get_ydata()) == medians for line in ramp.lines)
    (shown,) = sweep.lines
    assert list(shown.get_ydata()) == medians
    low, high = sweep.get_ylim()
    assert low <= min(medians) <= max(medians) <= high < 1.2
    assert ramp.get_ylim()[0] > 0.1, "the accuracies have no part in the limits of the loss"
    assert ramp.get_xlim() == sweep.get_xlim()


def test_a_loss_shares_the_axis_of_the_ramp_and_both_are_named() -> None:
    medians = [1.0, 0.5, 0.6, 0.9]
    (ax,) = beside_a_sweep(medians, 2.3, "min").axes
    assert any(list(line.get_ydata()) == medians for line in ax.lines)
    assert "train_loss" in ax.get_ylabel()
    assert "val_loss (final)" in ax.get_ylabel()
    assert "train_loss" in drawing.range_test(found_on(curve(LRS))).axes[0].get_ylabel()


def test_the_key_of_the_rules_is_as_they_are_drawn_and_named_as_in_the_text() -> None:
    found = found_on(curve(LRS))
    names = [rule for rule, _, _ in found.lines[0].rules]

    def key(unmoved: set[str], gone: str = "") -> dict[str, str]:
        line = found.lines[0]
        rules = tuple((rule, math.nan if rule == gone else rate, regret) for rule, rate, regret in line.rules)
        line = dataclasses.replace(line, rules=rules, unmoved=frozenset(unmoved))
        legend = drawing.range_test(dataclasses.replace(found, lines=(line,))).legends[0]
        handles = {one.get_label().removesuffix(" (a warning)"): one for one in legend.legend_handles}
        return {name: handles[name].get_color() for name in names if name in handles}

    calm = key({"per_unit"})
    assert list(calm) == names
    assert [name for name, color in calm.items() if color == GREY] == ["per_unit"]
    assert [name for name, color in key({"valley", "slide", "per_unit"}).items() if color == GREY] == [
        "valley", "slide", "per_unit",
    ]  # fmt: skip
    assert "slide" not in key({"per_unit"}, gone="slide")
