"""From a group of runs to their histories."""
