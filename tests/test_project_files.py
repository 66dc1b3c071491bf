"""What surrounds the code: the wheel, citation, changelog, workflows and the links of the pages."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import wsss_jax

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
PAGES = sorted((*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")))


def supported_pythons() -> list[str]:
    found = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", c) for c in classifiers()]
    return [match[1] for match in found if match]


def classifiers() -> list[str]:
    return PROJECT["classifiers"]


def workflow(path: Path) -> dict[Any, Any]:
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of this checkout; building needs no network."""
    folder = tmp_path_factory.mktemp("wheel")
    build = f"import hatchling.build; hatchling.build.build_wheel({str(folder)!r})"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    assert path.name.startswith(f"wsss_jax-{wsss_jax.__version__}-py3")
    return zipfile.ZipFile(path)


def test_the_wheel_has_the_package_with_its_recipes(wheel: zipfile.ZipFile):
    package = {
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "wsss_jax").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    recipes = {f"wsss_jax/configs/{path.name}" for path in (REPOSITORY / "configs").glob("*.py")}
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == package | recipes
    assert "wsss_jax/py.typed" in names
    assert {".css", ".js"} <= {Path(name).suffix for name in names}


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile):
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    text = wheel.read(metadata).decode()
    assert f"Version: {wsss_jax.__version__}\n" in text
    assert "License-Expression: Apache-2.0\n" in text
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert str(citation["version"]) == wsss_jax.__version__
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]
    assert {"message", "title", "type"} <= set(citation)


def test_the_changelog_begins_with_this_version():
    text = (REPOSITORY / "CHANGELOG.md").read_text()
    sections = re.findall(r"^## \[(.+?)\] - (\S+)$", text, re.MULTILINE)
    assert sections[0][0] == wsss_jax.__version__
    dates = [date for _, date in sections if date != "unreleased"]
    assert dates == sorted(dates, reverse=True)
    assert all(re.fullmatch(r"\d{4}-\d{2}-\d{2}", date) for date in dates)


def test_all_supported_pythons_are_tested():
    minors = [int(version.partition(".")[2]) for version in supported_pythons()]
    assert PROJECT["requires-python"] == f">=3.{min(minors)},<3.{max(minors) + 1}"
    test = workflow(REPOSITORY / ".github" / "workflows" / "test.yml")
    assert test["jobs"]["test"]["strategy"]["matrix"]["python"] == supported_pythons()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows(path: Path):
    found = workflow(path)
    assert found["concurrency"]["cancel-in-progress"] is True
    assert found["permissions"] == {"contents": "read"}
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    for job in found["jobs"].values():
        assert job["timeout-minutes"] <= 60
        actions = [step["uses"] for step in job["steps"] if "uses" in step]
        assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in actions)
        setup = next(step for step in job["steps"] if "setup-python" in step.get("uses", ""))
        assert setup["with"]["cache"] == "pip"
        for name in setup["with"]["cache-dependency-path"].split():
            assert (REPOSITORY / name).is_file()
        commands = [step["run"] for step in job["steps"] if "run" in step]
        called = [re.fullmatch(r"make ([a-z-]+)( [A-Z]+=\S+)*", command) for command in commands]
        assert called and all(match and match[1] in targets for match in called)


def test_workflows_are_there():
    assert {path.stem for path in WORKFLOWS} >= {"lint", "test"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    for link in links:
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{page.name} links to {link}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{page.name} links to {link}"


def anchors(page: Path) -> set[str]:
    """What a link can name: the headings as Markdown renderers write them, and explicit ids."""
    text = page.read_text()
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = [re.sub(r"<.*?>", "", heading).strip().lower() for heading in headings]
    made = {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}
    return made | set(re.findall(r"id=\"([^\"]+)\"", text))
