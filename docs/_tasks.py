"""Count the lines of code of every task and tool on the page of tasks, and write them to ``tasks.csv``.

python docs/_tasks.py
"""

from __future__ import annotations

import ast
import csv
import re
from pathlib import Path

PAGE, TABLE = Path(__file__).parent / "tasks.md", Path(__file__).parent / "tasks.csv"
TOOLS = ("scratio", "Milo", "kompot", "MrVI")


def code(text: str) -> dict[str, dict[str, str]]:
    """Code by task and tool; empty where a tool has nothing for a task."""
    tasks: dict[str, dict[str, str]] = {}
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        parts = re.split(rf"^\*\*({'|'.join(TOOLS)})\*\*", section, flags=re.M)
        blocks = {
            tool: "".join(re.findall(r"^```python\n(.*?)^```", part, flags=re.S | re.M))
            for tool, part in zip(parts[1::2], parts[2::2], strict=True)
        }
        tasks[section.splitlines()[0]] = {tool: blocks[tool] for tool in TOOLS}
    return tasks


def n_lines(block: str) -> int:
    """Lines without imports, comments and empty lines."""
    imports = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Import | ast.ImportFrom)]
    skipped = {line for node in imports for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    kept = [line.strip() for number, line in enumerate(block.splitlines(), start=1) if number not in skipped]
    return sum(bool(line) and not line.startswith("#") for line in kept)


def table(text: str) -> list[list[str]]:
    """Rows of the table, its header first."""
    rows = [["task", *TOOLS]]
    for task, of in code(text).items():
        rows.append([task, *(str(n_lines(block)) if block else "–" for block in of.values())])
    return rows


if __name__ == "__main__":
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(table(PAGE.read_text("utf-8")))
