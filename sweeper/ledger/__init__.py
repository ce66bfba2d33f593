"""The ledger: what was planned and what is committed, in one SQLite file that can be rebuilt from the storage."""
