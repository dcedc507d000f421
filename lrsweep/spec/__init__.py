"""The experiment spec: YAML in, a checked Spec out."""
