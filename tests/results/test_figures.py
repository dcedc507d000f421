"""Finished figures in the folder of their sweep: whose tables they show."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrsweep.results import figures

OLD, NEW = "0" * 64, "1" * 64
ACCURACY = {"metric": "val_accuracy", "at": "final", "mode": "max"}


def put(folder: Path, name: str, mark: str) -> None:
    (folder / name).write_bytes(b"\x89PNG before " + mark.encode() + b" after")


@pytest.mark.parametrize("kind", figures.FORMATS)
def test_a_picture_is_outdated_if_it_is_of_other_tables(tmp_path: Path, kind: str) -> None:
    assert figures.outdated(tmp_path, NEW) == ()
    put(tmp_path, f"u_curve.{kind}", figures.mark(NEW))
    assert figures.outdated(tmp_path, NEW) == ()
    for mark in (figures.mark(OLD), "", "lrsweep-tables-1-objective"):
        put(tmp_path, f"heatmap_train.batch_size.{kind}", mark)
        assert figures.outdated(tmp_path, NEW) == (kind,)


def test_a_mark_ends_where_it_ends_whatever_byte_follows(tmp_path: Path) -> None:
    """The checksum that follows it in a PNG begins with a letter or digit now and then."""
    for shows in (None, ACCURACY):
        mark = figures.mark(NEW, shows)
        for following in (b"p", b"0", b"\xff"):
            (tmp_path / "u_curve.png").write_bytes(b"tEXt" + mark.encode() + following)
            assert figures.outdated(tmp_path, NEW) == (() if shows is None else ("png",))


def test_another_metric_is_for_run_to_replace_as_a_png_only(tmp_path: Path) -> None:
    for kind in figures.FORMATS:
        put(tmp_path, f"u_curve.{kind}", figures.mark(NEW, ACCURACY))
    assert figures.outdated(tmp_path, NEW) == ("png",)


def test_pictures_of_the_user_are_none_of_ours(tmp_path: Path) -> None:
    put(tmp_path, "holiday.png", "")
    assert figures.outdated(tmp_path, NEW) == ()


def test_a_report_goes_by_its_own_mark_not_by_those_of_its_pictures(tmp_path: Path) -> None:
    assert not figures.report_is_current(tmp_path, NEW)
    put(tmp_path, "report.html", f"{figures.mark(OLD)} {figures.mark(NEW)}")
    assert not figures.report_is_current(tmp_path, NEW)
    assert figures.report_is_current(tmp_path, OLD)


def test_a_link_is_not_read(tmp_path: Path) -> None:
    put(tmp_path, "elsewhere", figures.mark(NEW))
    (tmp_path / "u_curve.png").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "report.html").symlink_to(tmp_path / "elsewhere")
    assert figures.outdated(tmp_path, NEW) == ("png",)
    assert not figures.report_is_current(tmp_path, NEW)


def test_plots_with_options_are_outdated_by_their_own_names(tmp_path: Path) -> None:
    for name, suffix in (("u_curve", "__val_accuracy"), ("u_curve", "__adam__3.25in"), ("holiday", "__best")):
        put(tmp_path, f"{name}{suffix}.png", figures.mark(OLD, {"as": suffix}))
    put(tmp_path, "u_curve__mine.png", "")
    put(tmp_path, "u_curve__copy.png", figures.mark(OLD, {"as": "__val_accuracy"}))
    assert figures.outdated_variants(tmp_path, OLD) == {}
    assert figures.outdated_variants(tmp_path, NEW) == {
        "__adam__3.25in": [("u_curve", "png")],
        "__val_accuracy": [("u_curve", "png")],
    }
