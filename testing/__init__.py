"""What the tests and the benchmark share: a clock, factories, the exporter as a child process, and faults of Tedee."""
