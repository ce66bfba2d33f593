"""Benchmarks, one per file. Results are JSON files that describe the machine; tables are made from them."""
