"""Paired benchmarks: the same workloads on Ray and on warren, alternating in one run. See README.md."""
