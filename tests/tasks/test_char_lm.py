"""The language task: its text, its baselines recomputed by counting, and that a small transformer beats them."""

from __future__ import annotations

import collections
import math

import pytest
import torch

from lrsweep.errors import UsageError
from lrsweep.models import MODELS
from lrsweep.tasks import DEFAULT_MODELS, TASKS, shapes_of
from lrsweep.tasks.char_lm import story


@pytest.fixture(scope="module")
def task():
    return TASKS["char_lm"]()


def test_the_text_is_fixed_by_its_seed():
    assert story(80, 0) == story(1000, 0)[:80] != story(80, 1)
    assert len(story(1234, 3)) == 1234
    assert set(story(20_000, 0)) <= set("abcdefghijklmnopqrstuvwxyz ,.")


def test_examples_are_windows_of_the_text_and_targets_the_next_characters():
    task = TASKS["char_lm"](characters=2000, context=16, split="stored", val=10, test=10)
    text, alphabet = story(2000, 0), task.notes["alphabet"]
    assert sum(task.notes[part] for part in ("train", "val", "test")) == 1999 // 16
    assert alphabet == "".join(sorted(set(text)))
    x, y = (torch.cat([task.train[i], task.val[i], task.test[i]]) for i in (0, 1))
    assert "".join(alphabet[code] for code in x.flatten().tolist()) == text[: x.numel()]
    assert "".join(alphabet[code] for code in y.flatten().tolist()) == text[1 : y.numel() + 1]
    assert x.dtype == y.dtype == torch.int64


def test_too_little_text_is_refused():
    with pytest.raises(UsageError, match="only 1 windows of 900"):
        TASKS["char_lm"](characters=1000, context=900)


def test_baselines_by_plain_counting(task):
    x, y = (tensor.tolist() for tensor in task.train)
    singles = collections.Counter(code for row in y for code in row)
    pairs = collections.Counter(
        pair for row, following in zip(x, y, strict=True) for pair in zip(row, following, strict=True)
    )
    befores = collections.Counter(code for row in x for code in row)
    size = task.notes["num_outputs"]
    unigram = bigram = count = 0.0
    for row, following in zip(*(tensor.tolist() for tensor in task.val), strict=True):
        for before, code in zip(row, following, strict=True):
            unigram -= math.log((singles[code] + 1) / (sum(singles.values()) + size))
            bigram -= math.log((pairs[before, code] + 1) / (befores[before] + size))
            count += 1
    assert task.notes["baselines"] == pytest.approx({"unigram": unigram / count, "bigram": bigram / count}, rel=1e-9)
    assert bigram < 0.7 * unigram


def test_perplexity_is_finished_after_averaging(task):
    metric = task.metrics["perplexity"]
    logits = torch.zeros(2, 32, task.notes["num_outputs"])
    mean = metric(logits, task.val[1][:2])
    assert metric.finalize(mean).item() == pytest.approx(task.notes["num_outputs"], rel=1e-5)


def loss_after(task, steps):
    """Mean cross-entropy on val after `steps` of Adam at 3e-3 with batches of 32, in a plain loop."""
    torch.manual_seed(0)
    arguments = {key: value for key, value in DEFAULT_MODELS["char_lm"].items() if key != "name"}
    shapes = shapes_of(task)
    model = MODELS["transformer"](in_shape=shapes.in_shape, num_outputs=shapes.num_outputs, **arguments)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        batch = torch.randint(len(task.train[0]), (32,))
        optimizer.zero_grad()
        task.loss(model(task.train[0][batch]), task.train[1][batch]).backward()
        optimizer.step()
    with torch.no_grad():
        return task.loss(model(task.val[0]), task.val[1]).item()


def test_the_transformer_goes_below_the_bigram_baseline(task):
    assert loss_after(task, 120) < task.notes["baselines"]["bigram"] - 0.3


@pytest.mark.slow
def test_the_transformer_learns_the_longer_range(task):
    assert loss_after(task, 400) < 0.3 * task.notes["baselines"]["bigram"]
