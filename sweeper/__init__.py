"""Sweep: plan, launch, record and compare packs of runs across a laptop or a cluster."""
