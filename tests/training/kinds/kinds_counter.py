"""A module of the user's that another one writes into."""

CALLS = 0
