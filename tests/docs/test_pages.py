"""The documentation says what is so: its links lead somewhere, its commands exist, its files are where it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tsbs_daw import cli
from tsbs_daw.core.config import Settings

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
INCLUDED = re.compile(r'^--8<-- "(.+)"$', re.M)


def text_of(page: Path) -> str:
    """The page with the files that it includes."""
    text = page.read_text(encoding="utf-8")
    return INCLUDED.sub(lambda match: (ROOT / match[1]).read_text(encoding="utf-8"), text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file(page: Path):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.stem.lower() != "changelog"], ids=lambda page: page.name
)
def test_every_command_on_a_page_exists_with_its_options(page: Path):
    """`$ tsbs-daw separate song.wav --out stems`, and `tsbs-daw ...` inside of sentences."""
    text = text_of(page).replace("\\\n", " ")
    for line in re.findall(r"(?:^\$ |^ {4}|`)tsbs-daw ([a-z][^`\n]*)", text, re.M):
        words = shlex.split(line.replace("...", ""), comments=True)
        command = cli.load(cli.find(words[0]))
        if len(words) > 1 and words[1] in getattr(command, "commands", {}):
            command = command.commands[words[1]]
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        for option in (word.split("=")[0] for word in words if word.startswith("--") and word != "--help"):
            assert option in known, f"{page.name}: `tsbs-daw {line}` has no option {option}"


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in ROOT.glob("docs/*.md"):
        assert f": {page.name}\n" in navigation, f"mkdocs.yml does not list docs/{page.name}"


def test_troubleshooting_names_the_folders_that_the_program_uses(tmp_path: Path):
    text = text_of(ROOT / "docs" / "troubleshooting.md")
    settings = Settings(tmp_path, tmp_path, tmp_path)
    assert f"`{settings.spool.name}/`" in text and f"`{settings.store.name}`" in text


def test_troubleshooting_says_how_large_the_cache_gets():
    from tsbs_daw.pipeline.stem_cache import LIMIT_BYTES

    assert f"{LIMIT_BYTES // 1024**3} GiB" in text_of(ROOT / "docs" / "troubleshooting.md").replace("\n", " ")


def test_the_architecture_page_names_files_and_every_package():
    text = text_of(ROOT / "docs" / "architecture.md")
    package = ROOT / "tsbs_daw"
    way = text[text.index("## The way of a song") : text.index("## Packages")]
    for name in re.findall(r"^\| `(.+?)` \|", way, re.M):
        assert (package / name).is_file(), f"the architecture page names {name}, which does not exist"
    for folder in package.iterdir():
        if folder.is_dir() and (folder / "__init__.py").exists():
            assert f"| `{folder.name}/` |" in text, f"the architecture page does not name {folder.name}/"


def test_the_readme_fits_in_a_few_screens_and_has_its_picture_on_the_first():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 140
    assert any(line.startswith("![") for line in lines[:12])


def test_the_workflow_covers_every_python_that_the_package_says_it_supports():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "check.yml").read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    supported = re.findall(r"Programming Language :: Python :: (3\.\d+)", project)
    assert workflow["jobs"]["matrix"]["strategy"]["matrix"]["python"] == supported
