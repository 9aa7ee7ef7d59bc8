"""The parts of benchmarks/kernels.py: what is measured, what it is held against, and how the result is shown."""
