"""What the benchmarks share: load, scenarios, systems under test, measurements."""
