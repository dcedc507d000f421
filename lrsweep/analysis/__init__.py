"""Statistics of a sweep: pure functions from the tables to frozen facts."""
