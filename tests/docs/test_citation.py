"""CITATION.cff: it parses, has what the format asks for, and agrees with the package."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_citation_names_the_package_and_the_paper():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["cff-version"] == "1.2.0"
    assert citation["message"]
    assert citation["title"].startswith(project["name"])
    assert str(citation["version"]) == project["version"]
    assert citation["license"] == project["license"]
    assert [a["name"] for a in citation["authors"]] == [a["name"] for a in project["authors"]]
    paper = citation["preferred-citation"]
    assert paper["type"] == "conference-paper"
    assert [a["family-names"] for a in paper["authors"]] == [
        "Zhao",
        "Chen",
        "Das",
        "Ramamurthy",
        "Lin",
    ]
    assert (paper["year"], paper["url"]) == (2020, "https://arxiv.org/abs/2005.00060")
