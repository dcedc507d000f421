"""Plots of sweeps that are hard to draw: no text is cut or covered, ticks differ, compared panels share an axis."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from matplotlib.colors import to_rgb

from lrsweep import plot
from lrsweep.plot import style
from tests.support import layout, plot_cases

MAIN = ("u_curve", "loss_curves")
QUICK = ("one_rate", "one_seed", "long_labels", "offset_1e6", "all_diverged", "momentum")
"""Of the default tier; the slow one has every plot of every case."""


def drawn(case: str, only: tuple[str, ...] = ()) -> list[plot.Picture]:
    return list(plot.pictures(plot_cases.CASES[case](), only))


@pytest.mark.parametrize("case", QUICK)
def test_the_main_plots_can_be_read(case: str) -> None:
    for picture in drawn(case, MAIN):
        assert layout.faults(picture.figure) == {}, picture.name


@pytest.mark.slow
@pytest.mark.parametrize("case", plot_cases.CASES)
def test_all_plots_of_every_case_can_be_read(case: str) -> None:
    pictures = drawn(case)
    assert pictures
    for picture in pictures:
        assert layout.faults(picture.figure) == {}, picture.name


@pytest.mark.slow
@pytest.mark.parametrize("width", [3.25, 5.5, 6.75])
@pytest.mark.parametrize("case", ["one_seed", "long_labels", "two_axes", "offset_1e6", "momentum"])
def test_all_plots_can_be_read_at_the_widths_of_papers(case: str, width: float) -> None:
    sweep = plot_cases.CASES[case]()
    for picture in plot.pictures(replace(sweep, width=width, titled=False)):
        assert picture.figure.get_size_inches()[0] == pytest.approx(width)
        assert layout.faults(picture.figure) == {}, picture.name


@pytest.mark.parametrize("case", ["one_seed", "two_axes"])
def test_panels_that_are_compared_share_their_axis(case: str) -> None:
    for picture in drawn(case, MAIN):
        assert len({ax.get_ylim() for ax in picture.figure.axes}) == 1, picture.name
        assert len({ax.get_xlim() for ax in picture.figure.axes}) == 1, picture.name


@pytest.mark.parametrize(
    ("case", "label"),
    [
        ("losses_1e9", "val_loss (final) / 10⁹"),
        ("losses_1e-9", "val_loss (final) / 10⁻⁹"),
        ("offset_1e6", "val_loss (final) - 1000000"),
        ("negative", "val_loss (final)"),
    ],
)
def test_large_small_and_offset_values_have_short_numbers_and_the_axis_says_what_they_are(
    case: str, label: str
) -> None:
    (picture,) = drawn(case, ("u_curve",))
    ax = picture.figure.axes[0]
    assert ax.get_ylabel() == label
    names = [text.get_text() for text in ax.get_yticklabels() if text.get_text()]
    assert len(names) >= 3
    assert max(map(len, names)) <= 5


def test_a_target_has_the_digits_that_tell_it_from_the_best() -> None:
    for case, wanted in (("offset_1e6", r"val_loss ≤ 1000000\.\d{2,3}$"), ("losses_1e9", r"val_loss ≤ \d\.\d+e8$")):
        (picture,) = drawn(case, ("time_to_target",))
        assert re.search(wanted, picture.figure.texts[0].get_text()), case


def test_a_long_label_is_whole_where_it_names_a_panel() -> None:
    (picture,) = drawn("long_labels", ("u_curve",))
    for ax, label in zip(picture.figure.axes, plot_cases.LONG, strict=False):
        bold = [text.get_text() for text in ax.texts if text.get_fontweight() == "bold"]
        assert " ".join(bold) == label


def test_nothing_trained_has_no_best_rate_no_good_range_and_no_recommendation() -> None:
    for picture in drawn("nothing_trained"):
        key = [text.get_text() for legend in picture.figure.legends for text in legend.get_texts()]
        assert not any("best" in text or "good" in text or "recommended" in text for text in key), picture.name
        for ax in picture.figure.axes:
            assert not any(patch.get_facecolor()[:3] == to_rgb(style.GOOD) for patch in ax.patches)


@pytest.mark.parametrize("name", ["u_curve_overlay", "u_curve_aligned"])
def test_with_two_axes_the_overlay_has_a_panel_per_value_of_one_and_a_color_per_value_of_the_other(name: str) -> None:
    sweep = plot_cases.CASES["two_axes"]()
    (picture,) = plot.pictures(sweep, (name,))
    panels = picture.figure.axes
    titles = [[text.get_text() for text in ax.texts if text.get_fontweight() == "bold"] for ax in panels]
    assert titles == [["dropout=0.1"], ["dropout=0.2"]]
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in panels}) == 1
    for ax in panels:
        curves = {(one.get_color(), one.get_marker()) for one in ax.lines if one.get_marker() in ("o", "s")}
        assert len(curves) == 6, "three sizes, two optimizers"
        assert len({color for color, _ in curves}) == 3
    key = [text.get_text() for text in picture.figure.legends[0].get_texts()]
    assert key[:5] == ["batch_size=16", "batch_size=64", "batch_size=256", "sgd", "adam"]
    assert layout.faults(picture.figure) == {}
