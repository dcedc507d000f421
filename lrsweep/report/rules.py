"""The definition of every number in the report, with its source. The report prints all of them."""

from __future__ import annotations

import re

WORTSMAN = "Wortsman et al. 2023, arXiv:2309.14322, section 2.2 and appendix B"
OURS = "our choice; no standard definition exists"

RULES: tuple[tuple[str, str, str], ...] = (
    (
        "Cost of a run",
        "The objective named at the top. Losses and errors (names ending in loss or error; mse, mae, rmse, nll, "
        "perplexity) are minimized, every other metric is maximized. A diverged run has cost +inf, whatever its last "
        "loss; failed runs are excluded and counted. Only differences of costs are used, never ratios, so adding a "
        "constant to the loss changes nothing.",
        "our convention",
    ),
    (
        "Median over seeds, l0, best learning rate",
        "m(lr) is the median cost over seeds, +inf if half or more of them diverged. l0 is the median over seeds of "
        "the measured cost of the untrained model (step 0). The best learning rate is the smallest one with the "
        "lowest m. It is the best of those tried with this budget: the optimal learning rate cannot be computed, only "
        "searched for.",
        "our convention; on trial and error: Goodfellow et al. 2016, section 11.4",
    ),
    (
        "Improvement",
        "l0 - m(best): how far training with the best learning rate lowered the cost of the untrained model. Nothing "
        "trained if it is at most 100 rounding errors of l0 (of the dtype of the training) or at most twice the noise "
        "of the evaluations, from one to the next, at the best learning rate (or, if it fails that, at the one whose "
        "improvement exceeds its own noise by most): then there is no good range, no "
        "recommendation, no sensitivity and no target. Learning rates are too small if none makes a difference, or if "
        "the improvement at the top of the grid still grows by at least half the step between the last two learning "
        "rates; nothing trained then unless the improvement exceeds the spread of the untrained models over seeds (1 % "
        "of l0 where they are equal).",
        OURS,
    ),
    (
        "Sensitivity S",
        "Mean over the learning rates of min(m(lr), l0) - m(best): how much worse than the best the grid is on "
        "average, where nothing counts as worse than not training. On an even grid (spacings within 20 %) it is the "
        "plain mean; on an uneven one each learning rate weighs by the length of log lr that it covers: half the "
        "distance to each neighbor, at an end the distance to its one neighbor. The median over the grid and the "
        "expected best use the same weights, so that adding learning rates refines a number, and learning rates that "
        "--refine added beyond the ends of the spec's grid are left out of all three, so that they stay comparable. "
        "Learning rates whose runs failed count for none of them, and a single learning rate has no S. S "
        "depends on the range, which is printed next to it, and is meaningless without the curve: a model that never "
        "learns has none.",
        WORTSMAN,
    ),
    (
        "S / improvement",
        "S as a fraction of the improvement, between 0 and 1, and so independent of the scale of the loss.",
        OURS,
    ),
    (
        "S over three decades",
        "The lowest S over windows of exactly three decades of the grid that contain the best learning rate. Use it to "
        "compare optimizers whose best learning rates differ; it needs a grid of at least three decades.",
        f"after {WORTSMAN} and section 3.2.2, where windows follow the optimum",
    ),
    (
        "Intervals",
        "Bootstrap: seeds are resampled with replacement (the same draw for all learning rates, because seeds "
        "share weights and batches), the number is recomputed, and the 2.5 and 97.5 percentiles are shown. Up to 6 "
        "seeds all possible draws are used, beyond that 10,000 fixed ones. From 5 seeds on this is called a 95 % "
        "interval. With fewer it covers less (71 to 83 % with 3) and is called a range over n seeds; with one seed "
        "there is none.",
        "bootstrap percentile interval, Efron 1979",
    ),
    (
        "Good range",
        "The learning rates around the best one whose m is at most m(best) + 5 % of the improvement. Between grid "
        "points the edge is interpolated in log lr. One outlier does not end the range: a learning rate outside it "
        "counts as inside if no seed diverged there, it keeps half of the improvement, and the next one further out is "
        "inside. Next to a diverging learning rate the edge is the last one inside, "
        "because nothing in between was tried; there, and where the grid ends first, the width is a lower bound (≥). "
        "Widths are in decades: log10(high / low). A `~` marks the width of a range that holds a single grid point: "
        "both of its ends are interpolated.",
        OURS,
    ),
    (
        "Recommended learning rate",
        "Of the grid points in the good range at which no seed diverged or lost half of the improvement, and at least "
        "a factor of 2 below `unusable from` where the good range has one, the one closest to its center in log lr. If "
        "there is none, or the grid ends before the good range does: the best learning rate, with the reason. With few "
        "points in the good range it can be well above the best learning rate; the cost there is shown next to it.",
        OURS,
    ),
    (
        "Learning rates to try next",
        "One decade past an edge of the grid that the best learning rate or the good range touches. If the learning "
        "rates are too small: up, one per decade, to where an improvement in proportion to lr would be as large as l0 "
        "(at least 2 decades and at most 6; 4 if there was none). Three decades down if every learning rate diverged, "
        "one if nothing trained and runs diverged; if nothing trained and nothing diverged, one decade past the end "
        "that the best learning rate is nearest to. If fewer than "
        "three points lie in the good range, its gaps are divided evenly until three do. If a diverged learning rate "
        "lies next to the good range, more than a factor of 2 away, or one above it loses half of the improvement or "
        "more, that gap is filled in steps of half a decade or less; if nothing else is left to add, so are gaps in "
        "and beside the good range that are wider than half a decade. No learning rate is added within 12 % (0.05 "
        "decades) of one already tried, where more seeds would help more, nor beyond those at which every run failed, "
        "nor if the loss of the untrained model is not finite. If more than half of the "
        "runs diverged, the suggested line leaves out the highest diverging learning rates except the lowest of them.",
        OURS,
    ),
    (
        "Unusable from, diverges from, largest safe learning rate",
        "Unusable from: the smallest learning rate above the best at which m loses at least half of the improvement, "
        "diverged or not; the margin is the distance from the best one to it. Diverges from: the smallest one above "
        "the best at which at least half of the seeds diverged. Largest safe: the largest one below both at which no "
        "seed diverged or lost half of the improvement. The best learning rate is often within a factor of 2 of the "
        "largest one that does not diverge.",
        "our choice; the factor: Bengio 2012, arXiv:1206.5533",
    ),
    (
        "Regret at the default learning rate",
        "m(default lr of torch) - m(best). A default between two grid points is interpolated (marked ~); outside the "
        "grid it is not reported.",
        OURS,
    ),
    (
        "Tied with the best",
        "Tied means that these seeds cannot distinguish the two, not that they are equally good: with three seeds "
        "intervals are wide and many learning rates are tied; more seeds separate more of them. A learning rate is "
        "tied if the t interval (level 95 %) of its seed-by-seed difference to the best one includes 0, with costs "
        "above l0 counted as l0, as in S. One with a median not below l0, or with a diverged seed, is never tied; with "
        "a single seed only the best one is. Where seeds vary widely, one that barely trains can be tied as well.",
        "paired t interval",
    ),
    (
        "Selection",
        "m(best) is the lowest of many noisy medians, so it is biased low and S high. The test split chose nothing: "
        "where there is one, its value at the recommended learning rate is free of that bias "
        "(`test_at_recommended` in summary.csv).",
        OURS,
    ),
    (
        "Time to target",
        "Steps until the first evaluation at or below the target, l0 - 90 % of (l0 - lowest m of the sweep) unless "
        "stated otherwise; median over seeds, never if half of them do not reach it. The performance profile is the "
        "fraction of the grid that needs at most tau times the shortest time.",
        "Asi and Duchi 2019, PNAS; AlgoPerf; details ours",
    ),
    (
        "Expected best after k tries",
        "Expected lowest m among k learning rates drawn from the grid with replacement, with costs clamped at l0.",
        "Dodge et al. 2019, Show Your Work, arXiv:1909.03004",
    ),
    (
        "Drift of the best learning rate",
        "Least-squares slope of log10 best lr against log10 of the budget (or an axis). With a constant schedule, "
        "earlier evaluations of the same runs serve as shorter budgets. Budgets whose best learning rate is at the "
        "edge of the grid are left out, because the true one may lie beyond it. Between grid points the best learning "
        "rate is the vertex of a parabola through the three lowest points in log lr, if all three are finite at every "
        "budget of the curve; otherwise no curve is refined. A slope needs two budgets, its interval three. A best "
        "learning rate is known to half a grid step at best: the interval of a slope allows for that at every point, "
        "that of a ratio of two best ones at both. Where the best one of the grid never changes there is no slope but "
        "the words `no drift seen`; where its interval holds 0, `no clear drift`.",
        OURS,
    ),
    (
        "Status",
        "diverged: a batch loss, an evaluation or a weight is not finite; or the loss ends above its start and keeps "
        "rising: the whole last quarter of train_loss lies above the start, the medians of quarters 2, 3 and 4 "
        "increase, and quarter 4 exceeds quarter 2 by more than 4 times the noise of the second half or of the whole "
        "curve, whichever is less (with 3 to 7 evaluations: the last three lie above the start and strictly "
        "increase); and val_loss ends above its start by more than 4 times its own noise. failed: an exception. "
        "Otherwise ok, also if the loss rose and came back. A diverged run stops, is never retried and never counts "
        "as best.",
        OURS,
    ),
    (
        "Diagnosis",
        "From train_loss alone: a `converged` run can still end with a val_loss above the untrained model's; runs that "
        "end worse in the objective than the untrained model of their seed without diverging are counted in the "
        "caveats. R is the best improvement among the learning rates of this optimizer, p the fraction of R that the "
        "run reached, g the further decrease that another equal budget would bring, over R, s the noise of the tail "
        "over R, r the fraction of increases in the tail. First match: worse_than_start p < -0.05; oscillating (s > "
        "0.015 and r >= 0.3) or g < -0.1; too_slow p < 0.5 at or below the best lr, and (p < 0.05 or g >= 0.1 p); "
        "improving p < 0.5 above it, p >= 0.05 and g >= 0.1 p; stuck any other p < 0.5; recovered_spike an increase of "
        "more than 0.5 R that came back; improving g >= 0.05; converged p >= 0.9; stuck the rest. If R is no "
        "more than 100 rounding errors of the loss at the start: worse_than_start if the loss rose by more than that, "
        "else stuck. No diagnosis with fewer than 8 evaluations.",
        "ours, after Goodfellow et al. 2016 and Reed and Marks 1999: too fast means a sharp change followed by a "
        "plateau or a rise; too slow means little or no change",
    ),
    (
        "What runs share",
        "The seed alone determines the initial weights and the order of the batches, so all learning rates and "
        "optimizers of one seed start from the same weights and see the same batches. Step 0 of a curve is the "
        "untrained model; nothing is smoothed or filled in.",
        "by construction",
    ),
)


def anchor(name: str) -> str:
    """The id of the definition with this name."""
    return "def-" + "-".join(re.findall(r"[a-z0-9]+", name.lower()))


def definition(name: str) -> str:
    """The id of the definition whose name begins so; "" if there is none."""
    return next((anchor(rule) for rule, _, _ in RULES if name and rule.startswith(name)), "")
