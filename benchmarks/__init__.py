"""Measurements, one a file. Results are JSON that names the machine; tables are made from them."""
