"""The ledger: what was asked for and what is true, in one SQLite file that storage can make again."""
