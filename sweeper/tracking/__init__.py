"""MLflow as a projection of the ledger, kept up to date by a process of its own."""
