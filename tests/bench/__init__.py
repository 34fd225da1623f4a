"""Benchmarks: `make bench`. Everything that is compared is measured in turn, in one run."""
