"""The pages as a site."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import wsss_jax.api

REPOSITORY = Path(__file__).resolve().parent.parent
SITE: dict[str, Any] = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())


def pages(node: Any) -> Iterator[str]:
    for value in node.values() if isinstance(node, dict) else node:
        if isinstance(value, str):
            yield value
        else:
            yield from pages(value)


def test_every_page_is_in_the_navigation_once():
    docs = REPOSITORY / SITE["docs_dir"]
    written = sorted(path.relative_to(docs).as_posix() for path in docs.glob("**/*.md"))
    assert sorted(pages(SITE["nav"])) == written


def test_the_reference_names_what_the_package_offers():
    text = (REPOSITORY / "docs/reference.md").read_text()
    listed = re.search(r"members: \[(.*)\]", text)
    assert listed is not None
    assert set(listed[1].split(", ")) == set(wsss_jax.__all__) - {"__version__"}
    for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE):
        assert (REPOSITORY / f"{name.replace('.', '/')}.py").is_file(), name


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path: Path):
    pytest.importorskip("mkdocstrings", reason="the extra docs is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)],
        cwd=REPOSITORY,
        env={"NO_MKDOCS_2_WARNING": "1", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for page in pages(SITE["nav"]):
        name = page.replace("README", "index").replace(".md", ".html")
        text = (tmp_path / name).read_text()
        assert 'class="arithmatex"' not in text  # formulas are MathML
        # Nothing is loaded from elsewhere.
        loaded = re.findall(
            r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="(http[^"]*)"', text
        )
        assert not loaded, (page, loaded)
