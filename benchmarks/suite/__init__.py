"""The benchmarks: see ``docs/benchmarks/``, which they write."""
