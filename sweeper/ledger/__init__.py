"""The ledger: what was asked for and what is committed, in one SQLite file that can be rebuilt from the storage."""
