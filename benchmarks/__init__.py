"""What is claimed, measured: each program writes benchmarks/results/<name>.json beside the machine's description."""
