"""The parts of benchmarks/zoo.py: which networks there are, how one is compared, run apart, and written down."""
