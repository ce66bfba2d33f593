"""Plan, train, record and compare packs of runs on a laptop or a cluster."""
