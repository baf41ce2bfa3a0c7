"""Paired benchmarks: the same workloads on Ray and on rabbitry, alternating in one run. See README.md."""
