"""Results: the on-disk format, the statistics, and what a run amounts to."""
