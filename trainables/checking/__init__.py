"""Whether a plug-in keeps its contract, see `trainables.contracts`: a module for each kind, with a list of laws.

The laws of sweeps are in `sweeper.scheduling.checking`, since they plan runs.
"""
