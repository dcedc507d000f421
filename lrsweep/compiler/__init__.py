"""Record a training step, rewrite it, replay it."""
