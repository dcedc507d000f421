"""What is derived from the journal: tables, manifest, status, comparisons."""
