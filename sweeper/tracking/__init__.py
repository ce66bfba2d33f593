"""Mirror the ledger in MLflow, from a separate process."""
