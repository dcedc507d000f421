"""From tables to facts: numbers only."""
