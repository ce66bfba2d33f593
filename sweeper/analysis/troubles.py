"""Runs that failed or diverged, in words."""

import re

from sweeper.analysis import labels
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import SweepId


def troubles(records: Records, sweep: SweepId) -> list[str]:
    """Return one line for each run of a sweep that failed or diverged."""
    errors = {(failure.key, failure.attempt): failure.message for failure in records.failures()}
    lines = []
    for row in records.members(sweep):
        params = ", ".join(labels.hyperparameter(name, value) for name, value in row.params.items())
        what = f"{sweep} {params} seed {row.seed}"
        if row.status == "diverged":
            lines.append(f"diverged: {what}, not finite from step {row.first_bad_step} on")
        elif row.status == "failed":
            message = errors.get((row.key, row.attempt or 0), "unknown error")
            lines.append(f"failed: {what}: {_cause(message)}")
    return lines


def _cause(message: str) -> str:
    """Return the line of a traceback that names the error, or the last line if none does."""
    lines = message.strip().splitlines() or [""]
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]
    return named[-1] if named else lines[-1]
