"""What mkdocs does besides: pages from outside docs/, and formulas as MathML, which needs no script."""

import html
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
OUTSIDE = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "launch/README.md",
    "launch/*/*.sh",
    "launch/*/*.yaml",
    "benchmarks/*.md",
    "benchmarks/*.png",
]


def on_files(files, config):
    """Adds the pages that stand elsewhere in the repository."""
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turns links that are right in the repository into links that are right in the site."""
    if not page.file.generated_by:  # docs/performance.md: ../benchmarks/results.md
        return re.sub(
            r"(\]\()((?:\.\./)*)\.\./(?=benchmarks/|launch/README|CHANGELOG|CONTRIBUTING)",
            r"\1\2",
            markdown,
        )
    return re.sub(r"(\]\((?:\.\./)?)docs/", r"\1", markdown)  # CONTRIBUTING.md: docs/adding.md


def on_page_content(content, page, config, files):
    """LaTeX between dollars as MathML."""

    def mathml(match):
        formula = html.unescape(match[2]).strip()
        return convert(formula[2:-2], display="block" if match[1] == "div" else "inline")

    return re.sub(r'<(div|span) class="arithmatex">(.*?)</\1>', mathml, content, flags=re.DOTALL)
