"""One sweep, end to end."""
