"""The parts of benchmarks/gpu.py: the networks, what is timed of one, and the page made of the results."""
