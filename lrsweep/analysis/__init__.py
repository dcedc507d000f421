"""Statistics of a sweep: pure functions from the tables to facts, which are numbers and fixed words only."""

from lrsweep.analysis.analyse import analyse

__all__ = ["analyse"]
