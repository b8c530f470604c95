"""No page says the same thing twice: a block pasted again would give two versions of its figures."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The key reference is generated, and repeats the keys that experiments share.
PAGES = sorted({ROOT / "README.md", *(ROOT / "docs").rglob("*.md")} - {ROOT / "docs" / "config.md"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_heading_or_paragraph_stands_twice(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    lines = [line for line in text.splitlines() if not line.startswith(("    ", "|"))]
    counts = Counter(line for line in lines if line.startswith("#") or len(line) > 60)
    assert not [line for line, count in counts.items() if count > 1]
