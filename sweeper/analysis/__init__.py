"""What committed runs say: tidy tables, the Pareto front with its intervals, references to read scores by."""
