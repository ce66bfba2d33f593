"""docs/extending.md, whose files and commands several tests use."""

import re
from pathlib import Path

TEXT = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()


def write_files(folder: Path) -> None:
    """Write the Python files of the page."""
    for name, text in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", TEXT, re.DOTALL):
        (folder / name).write_text(text)
