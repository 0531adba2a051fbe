"""The benchmark harness: load generator, scenarios, systems under test, measurements, report."""
