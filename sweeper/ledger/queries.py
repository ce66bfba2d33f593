"""The long queries of the ledger, as SQL."""

from sweeper.ledger.schema import one_or_mixed

MEMBERS = """
    SELECT key, draws.number, params, seed,
        CASE WHEN done_step >= horizon_steps THEN 'done'
            WHEN first_bad_step < horizon_steps THEN 'diverged'
            WHEN step >= horizon_steps THEN 'done'
            WHEN EXISTS (SELECT 1 FROM failures WHERE failures.run = run_states.id
                AND failures.attempt = run_states.attempt) THEN 'failed'
            WHEN EXISTS (SELECT 1 FROM attempts WHERE attempts.number = run_states.attempt
                AND ended_at_s IS NULL) THEN 'running'
            ELSE 'planned' END,
        step, horizon_steps, first_bad_step, attempt, numerics, run_states.spec
    FROM members JOIN draws ON draws.id = draw JOIN run_states ON run_states.id = run
    WHERE sweep = ? ORDER BY draws.number, seed"""

POINTS = """
    SELECT key, name, identity, step, time_s, value
    FROM points JOIN runs ON runs.id = points.run JOIN metrics ON metrics.id = metric
    WHERE points.run IN ({runs}) ORDER BY points.run, name, identity, step"""


LAST_POINTS = """
    SELECT runs.key, metrics.name, identity, points.step, time_s, value
    FROM (SELECT DISTINCT run, horizon_steps FROM draws JOIN members ON draw = draws.id WHERE sweep = ?) AS wanted
    CROSS JOIN metrics
    CROSS JOIN points ON (points.run, metric, step) = (wanted.run, metrics.id, horizon_steps)
    CROSS JOIN runs ON runs.id = points.run
    ORDER BY points.run, name, identity, step"""
"""Points at the horizon. CROSS JOIN keeps SQLite to this order, in which each point is looked up by its key."""


COMPUTED = """
    SELECT runs.key, metrics.name, identity FROM json_each(?) AS asked
    CROSS JOIN runs ON runs.key = asked.key
    CROSS JOIN metrics ON metrics.name IN (SELECT value FROM json_each(?))
    CROSS JOIN points ON (points.run, metric, step) = (runs.id, metrics.id, asked.value)"""
"""Metrics that runs have at a step; the joins as above."""


HISTORIES = f"""
    SELECT draws.number, seed,
        (SELECT COUNT(*) FROM points WHERE points.run = members.run AND step <= horizon_steps),
        (SELECT MIN(started_at_s) FROM attempt_runs JOIN attempts ON attempts.number = attempt
            WHERE attempt_runs.run = members.run),
        MAX(written_at_s), COALESCE({one_or_mixed("numerics")}, ''), COALESCE({one_or_mixed("code_version")}, '')
    FROM draws JOIN members ON draw = draws.id
    LEFT JOIN (block_runs JOIN blocks ON blocks.attempt = block_runs.attempt AND blocks.number = block)
        ON block_runs.run = members.run AND start_step < MIN(end_step, horizon_steps)
    WHERE sweep = ? GROUP BY draws.number, seed"""  # noqa: S608 (of our own words)


STATES = """
    SELECT key, step, attempt, block, file, offset, length, sha256 FROM (
        SELECT states.*, ROW_NUMBER() OVER newest_first AS age,
            FIRST_VALUE(status) OVER newest_first AS newest_status
        FROM (
            SELECT slices.*, step, status,
                ROW_NUMBER() OVER (PARTITION BY run, attempt ORDER BY block DESC) AS age_in_attempt
            FROM slices JOIN block_runs USING (run, attempt, block)
            WHERE name = ? AND run IN ({runs})
                AND run NOT IN (SELECT run FROM block_runs WHERE status = 'diverged')) AS states
        WHERE age_in_attempt <= ? AND NOT EXISTS (
            SELECT * FROM attempt_runs AS later JOIN block_runs AS first
                ON first.run = later.run AND first.attempt = later.attempt AND first.block = 0
            JOIN blocks ON blocks.attempt = first.attempt AND blocks.number = first.block
            WHERE later.run = states.run AND later.attempt > states.attempt
                AND start_step < states.step AND start_step < end_step)
        WINDOW newest_first AS (PARTITION BY states.run ORDER BY states.attempt DESC, states.block DESC))
    JOIN runs ON id = run WHERE age = 1 OR (age <= ? AND newest_status <> 'done') ORDER BY key, age"""
"""States to resume from: the newest state of a run and, while it is unfinished, the one before.

A diverged run has none. A state is given up if a later attempt trained the run from an earlier step, since then this state,
or the state of another run of the pack, was damaged. Of an attempt's states its worker kept the newest two, given up or not.
Attempts that score finished runs train no steps and do not count."""


NEWEST_BLOCK = """
    SELECT COALESCE(MAX(written_at_s), 0.0) FROM draws JOIN members ON draw = draws.id
    JOIN block_runs ON block_runs.run = members.run
    JOIN blocks ON blocks.attempt = block_runs.attempt AND blocks.number = block
    WHERE sweep = ? AND (start_step < horizon_steps OR end_step <= horizon_steps)"""


AMBIGUOUS_METRICS = """
    SELECT metrics.name, identity FROM points JOIN metrics ON metrics.id = metric
    WHERE metric IN (SELECT id FROM metrics WHERE identity <> '' AND name IN
            (SELECT name FROM metrics WHERE identity <> '' GROUP BY name HAVING COUNT(*) > 1))
        AND run IN (SELECT run FROM draws JOIN members ON draw = draws.id WHERE sweep = ?)
    GROUP BY metric ORDER BY MIN(time_s)"""


PACE = """
    SELECT SUM((end_step - start_step) * (
            SELECT COUNT(*) FROM block_runs WHERE (attempt, block) = (blocks.attempt, blocks.number))),
        MIN(started_at_s)
    FROM attempts JOIN blocks ON attempt = attempts.number
    WHERE ended_at_s IS NULL AND attempts.number IN (
        SELECT attempt FROM attempt_runs JOIN members USING (run) JOIN draws ON draws.id = draw WHERE sweep = ?)"""
"""Run-steps that open attempts have committed, and when the first began."""
