"""What was measured, and the methods that it is measured against; `python -m benchmarks.NAME`, from the repository."""
