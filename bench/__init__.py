"""Load generators, baselines and tools to break connections; prints ratios."""
