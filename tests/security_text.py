"""
What SECURITY.md says in tables and code blocks, for the tests that hold it to its word.
"""

from pathlib import Path

SECURITY = Path(__file__).parents[1] / "SECURITY.md"


def section(title: str) -> list[str]:
    """
    The lines below a heading, up to the next heading of any level.
    """
    lines = SECURITY.read_text(encoding="utf-8").splitlines()
    (begin,) = [at for at, line in enumerate(lines) if line.startswith("#") and line.lstrip("# ") == title]
    below = lines[begin + 1 :]
    end = next((at for at, line in enumerate(below) if line.startswith("#")), len(below))
    return below[:end]


def table(title: str) -> list[list[str]]:
    """
    The cells of the one table below a heading, row by row, without its head.
    """
    rows = [line for line in section(title) if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows[2:]]


def code_block(title: str) -> str:
    """
    The one code block below a heading.
    """
    _, block, _ = "\n".join(section(title)).split("```")
    return block.partition("\n")[2]
