"""The command line: what a person types, what they are told, the exit code."""
