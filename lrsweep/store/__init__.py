"""What is true about a sweep, on disk."""
