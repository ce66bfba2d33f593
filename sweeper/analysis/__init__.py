"""Results of committed runs: tidy tables, the Pareto front with its intervals, and reference scores."""
