"""Every rule behind a number of the report, in words, with its source. The report prints all of them."""

from __future__ import annotations

WORTSMAN = "Wortsman et al. 2023, arXiv:2309.14322, section 2.2 and appendix B"
OURS = "our choice; no canonical definition was found"

RULES: tuple[tuple[str, str, str], ...] = (
    (
        "Cost of a run",
        "The objective named at the top. Losses and errors (names ending in loss or error; mse, mae, rmse, nll, "
        "perplexity) are minimised, every other metric is maximised. A diverged run costs +inf, whatever its last"
        " loss; a failed run is left out and counted. Only differences of costs are used, never ratios, so adding"
        " a constant to a loss changes nothing.",
        "our convention",
    ),
    (
        "Median over seeds, l0, best rate",
        "m(rate) is the median cost over seeds, +inf where half or more of them diverged. l0 is the median over "
        "seeds of the measured cost of the untrained model (row 0). The best rate is the smallest grid rate with "
        "the least m: the best of those tried, on this budget; the best possible rate cannot be computed, only "
        "looked for.",
        "our convention; trial is the only way: Goodfellow et al. 2016, section 11.4",
    ),
    (
        "Sensitivity S",
        "Mean over the rates of min(m(rate), l0) - m(best): how much worse than the best rate the grid is on "
        "average, where nothing counts as worse than not training. It depends on the range, which is printed "
        "beside it, and means nothing without the curve: a model that never learns has S = 0.",
        WORTSMAN,
    ),
    (
        "S over l0 - m(best)",
        "S as a share of what can be gained, between 0 and 1, hence free of the loss's scale.",
        OURS,
    ),
    (
        "S over three decades",
        "The least S over windows of exactly three decades of the grid that contain the best rate. For comparing "
        "optimizers whose best rates lie apart; needs a grid of three decades or more.",
        f"after {WORTSMAN} and section 3.2.2, where windows are moved with the optimum",
    ),
    (
        "Intervals",
        "95 %: the seeds are drawn again with replacement (one draw for all rates, since seeds share weights and "
        "batches) and the number is computed anew; the 2.5 and 97.5 percentiles are shown. All draws up to 6 "
        "seeds, 10,000 beyond, always the same ones. With three seeds this is rough; with one there is none.",
        "bootstrap percentile interval, Efron 1979",
    ),
    (
        "Basin (the good range)",
        "The rates around the best one whose m stays within m(best) + 5 % of (l0 - m(best)). Between grid points "
        "the edge is interpolated in log rate; next to a diverging rate it is the last rate inside, since "
        "nothing was tried between the two. There, and where the grid ends first, the width is a lower bound (≥). "
        "Widths are in decades, log10 of high over low.",
        OURS,
    ),
    (
        "Recommended rate",
        "Of the grid rates in the basin without a diverged seed, the one nearest to the basin's centre in log "
        "rate. Where the grid ends before the basin does, the best rate, with the advice to widen the grid. With "
        "few rates in the basin it may be well above the best: what it costs stands beside it.",
        OURS,
    ),
    (
        "Rates to try next",
        "A decade past an edge that the best rate or the basin touches; a decade down where every rate diverged or "
        "nothing trained and runs diverged, a decade up where nothing trained and none did. Fewer than three rates"
        " in the basin: its gaps cut evenly until three lie in it. A diverged rate beside the basin, more than a "
        "factor of 2 away, or as far above it one that lost half of the gain or more: that gap, in steps of half a "
        "decade or less. No rate within 12 % (0.05 decades) of one that was tried, where seeds would tell more. "
        "No rate past those at which every run failed, and none where the untrained model's loss is "
        "not finite: no rate can mend that. "
        "Where more than half of the runs diverged, the line to paste leaves out the highest rates that diverge, but "
        "for the first of them.",
        OURS,
    ),
    (
        "Diverges from, largest rate that still trains",
        "The smallest rate above the best at which at least half of the seeds diverged. The largest that still "
        "trains is the largest below it with no diverged seed and a median better than untrained (`largest_safe_lr` in "
        "summary.csv); single seeds may end worse than untrained there. The best rate is often "
        "within a factor of 2 of the largest that does not diverge.",
        "our choice; the factor: Bengio 2012, arXiv:1206.5533",
    ),
    (
        "Regret at the default rate",
        "m(torch's own default rate) - m(best). A default between two grid rates is read off the line between "
        "them (marked ~); outside of the grid it is not given.",
        OURS,
    ),
    (
        "Tied with the best",
        "Not told from the best says that these seeds cannot tell the two apart, not that they are equally good: "
        "with three seeds the interval is wide and many rates are tied, more seeds tell more of them apart. "
        "A rate is tied if the 95 % t interval of the seed-by-seed difference to the best rate reaches down to 0,"
        " where a cost above l0 counts as l0, as in S. A rate whose median is not below l0, or with a diverged "
        "seed, is never tied; with one seed only the best itself is. The tables list those that keep half of the gain "
        "or more: where seeds spread widely, the interval of a rate that hardly trains reaches down to 0 too. "
        "summary.csv counts all (n_tied).",
        "paired t interval",
    ),
    (
        "Time to target",
        "Updates until the first row at or below the target, l0 - 90 % of (l0 - least m of the sweep) unless "
        "stated; median over seeds, never if half of them do not arrive. The profile shows the share of the grid "
        "that needs at most tau times the least time.",
        "Asi and Duchi 2019, PNAS; AlgoPerf; details ours",
    ),
    (
        "Expected best after k tries",
        "Expectation of the least m among k rates drawn from the grid with replacement, costs clamped at l0.",
        "Dodge et al. 2019, Show Your Work, arXiv:1909.03004",
    ),
    (
        "Drift of the best rate",
        "Least-squares slope of log10 best rate on log10 of the budget (or an axis). With a constant rate, "
        "earlier rows of the same runs are shorter budgets. Budgets whose best rate is at the grid's edge are left "
        "out: the true one may lie beyond. Between grid points the best rate is read off a parabola through the "
        "best three in log rate if all three are finite at every budget of the curve, else at none. A slope needs "
        "two budgets, its interval three.",
        OURS,
    ),
    (
        "Status",
        "diverged: a batch loss, an evaluation or a weight is not finite; or the loss ends above its start and "
        "keeps rising: all of the last quarter of train_loss rows above the start, quarter medians 2 < 3 < 4, and"
        " 4 above 2 by more than 4 times the noise of the second half (at 3 to 7 rows: the last three above the "
        "start and strictly rising). failed: an exception. Else ok, also when the loss rose and came back. A "
        "diverged run stops, is never tried again and never counts as best.",
        OURS,
    ),
    (
        "Diagnosis",
        "From train_loss alone: a run that is `converged` can end with a val_loss above the untrained model's; runs"
        " that end worse in the objective than the untrained model of their seed without counting as diverged are "
        "counted in the warnings. R is the best improvement among the rates of this optimizer, p the share of R "
        "this run reached, g the further fall another equal budget would bring over R, s the noise of the tail "
        "over R, r the share of rises in the tail. First match: worse_than_start p < -0.05; oscillating (s > 0.015 "
        "and r >= 0.3) or g < -0.1; too_slow p < 0.5 at or below the best rate, and (p < 0.05 or g >= 0.1 p); "
        "improving p < 0.5 above it, p >= 0.05 and g >= 0.1 p; stuck any other p < 0.5; recovered_spike a climb of "
        "more than 0.5 R that came back; improving g >= 0.05; converged p >= 0.9; stuck the rest. Fewer than 8 "
        "rows: none.",
        "ours, after Goodfellow et al. 2016 and Reed and Marks 1999: too fast is a sharp change, then a plateau "
        "or a rise; too slow is little or no change",
    ),
    (
        "What each run shares",
        "The seed alone decides the initial weights and the order of the batches, so all rates and optimizers of "
        "one seed start alike and see the same batches. Row 0 of a curve is the untrained model; nothing is "
        "smoothed or filled in.",
        "by construction",
    ),
)
