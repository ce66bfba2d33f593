"""Tables of measured rows; `python -m benchmarks.table FILE...` prints the results in JSON files as Markdown."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

MAX_ROWS = 60
"""Most rows to show of a stage; training has thousands of points."""


def markdown(result: Mapping[str, Any]) -> str:
    """Return all stages of a result as Markdown, each with its tables."""
    machine = result["machine"]
    name = machine.get("card") or machine["cpu"]
    lines = [
        f"## {name}",
        "",
        ", ".join(f"{key} {value}" for key, value in machine.items() if value is not None),
    ]
    if result["settings"]["is_rehearsal"]:
        lines += ["", "A rehearsal at tiny sizes on a CPU: these numbers mean nothing."]
    for stage, found in result["stages"].items():
        lines += ["", f"### {stage}: {found['status']}, {found['seconds']:.0f} s"]
        lines += ["", found["error"].strip().splitlines()[-1]] if found["error"] else []
        lines += ["", *table(found["rows"])] if found["rows"] else []
    return "\n".join(lines) + "\n"


def table(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Yield the lines of Markdown tables, one table for all rows with the same columns."""
    shown = [row for row in rows if "gamma" not in row][:MAX_ROWS] or rows[-MAX_ROWS:]
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in shown:
        groups.setdefault(tuple(row), []).append(row)
    for number, (columns, group) in enumerate(groups.items()):
        if number:
            yield ""
        yield "| " + " | ".join(columns) + " |"
        yield "|" + "---|" * len(columns)
        for row in group:
            yield "| " + " | ".join(_cell(row[name]) for name in columns) + " |"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return str(value).replace("|", "/")


def main(paths: Sequence[str]) -> int:
    """Print the tables of result files."""
    for path in paths:
        print(markdown(json.loads(Path(path).read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
