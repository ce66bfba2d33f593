"""Steps launched one by one from Python, compared with steps replayed as a graph."""

from collections.abc import Iterator

from benchmarks.gpu.kit import Bench, Row

SECONDS = 25.0


def rows(bench: Bench) -> Iterator[Row]:
    """Yield one row per size and way to launch."""
    for size in (2, 3) if bench.is_rehearsal else (8, 64):
        for launch in ("graph", "eager"):
            if bench.left_s < 3:
                return
            bench.forget()
            yield bench.rated(bench.pack(num_runs=size, launch=launch))
