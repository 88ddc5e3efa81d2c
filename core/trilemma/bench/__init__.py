"""Benchmarks of the operators and of whole sampling loops, as ratios within one run."""
