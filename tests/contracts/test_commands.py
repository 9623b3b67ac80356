"""What the README, the notes and the help texts tell people to type is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from launch.cli import EPILOG, VERBS, build_parser
from launch.recipe_files import find_chain, find_recipe, find_target

from .conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TARGETS = set(re.findall(r"^([a-zA-Z][\w-]*):", (ROOT / "Makefile").read_text(), re.M))


def shell_commands(page: Path) -> list[list[str]]:
    """The commands of a page's shell blocks, in words, without comments, prompts and what a pipe leads to."""
    blocks = re.findall(r"^```(?:sh|bash|shell|console)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in re.split(r"&&|\||;", line.removeprefix("$ "))]
    return [words for part in parts if (words := shlex.split(part, comments=True))]


def inline_commands(page: Path, program: str) -> list[list[str]]:
    """The commands between single backticks, such as `make test`."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [shlex.split(command) for command in re.findall(rf"`({program} [^`\n]+)`", text)]


def is_placeholder(word: str) -> bool:
    return word.isupper() or "..." in word or "<" in word


def check_slipway(words: list[str]) -> None:
    """Parses a command line, and looks for the recipe, chain and target that it names."""
    arguments = build_parser().parse_args(words)
    finders = (("recipe", find_recipe), ("recipes", find_recipe), ("chain", find_chain), ("on", find_target))
    for name, find in finders:
        value = getattr(arguments, name, None) or []
        for word in [value] if isinstance(value, str) else value:
            if not is_placeholder(word) and not word.endswith((".yaml", ".yml")):
                find(word)


@pytest.mark.parametrize("page", PAGES)
def test_every_make_command_of_a_page_is_a_target(page: Path) -> None:
    for words in [w for w in shell_commands(page) if w[0] == "make"] + inline_commands(page, "make"):
        goals = [
            word for word in words[1:] if "=" not in word and not word.startswith("-") and not is_placeholder(word)
        ]
        missing = set(goals) - TARGETS
        assert not missing, f"{' '.join(words)}: no target {missing}; there are {sorted(TARGETS)}"


@pytest.mark.parametrize("page", PAGES)
def test_every_slipway_command_of_a_page_parses(page: Path) -> None:
    for words in shell_commands(page):
        if Path(words[0]).name == "slipway":
            check_slipway(words[1:])
    for words in inline_commands(page, "slipway"):
        # Running text may stop at the verb, as in `slipway status`.
        if not any(map(is_placeholder, words)) and len(words) > 2:
            check_slipway(words[1:])
        else:
            assert words[1] in VERBS or is_placeholder(words[1])


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_every_example_of_a_help_text_parses(verb: str) -> None:
    text = VERBS[verb].EXAMPLES if verb else EPILOG
    examples = re.findall(r"^  slipway (.+?)(?:  +.*)?$", text, re.M)
    assert examples, f"`slipway {verb} --help` shows no example"
    for example in examples:
        check_slipway(shlex.split(example))


def test_the_readme_begins_with_commands() -> None:
    assert ["make", "demo"] in shell_commands(ROOT / "README.md")
    assert ["make", "test"] in shell_commands(ROOT / "README.md")


def test_every_relative_link_of_a_page_leads_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in link and not link.startswith("mailto:"):
                assert (page.parent / link).exists(), f"{page.name}: {link}"
