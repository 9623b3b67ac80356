"""Nothing in the house knows the machine on which it was written, or where that machine gets its packages."""

from __future__ import annotations

import re
import tomllib

from .conftest import ROOT

# Joined here, so that this file does not hold them itself.
HOSTS = [".".join(parts) for parts in (("pypi", "org"), ("files", "pythonhosted", "org"), ("deb", "debian", "org"))]
HOSTS += [".".join(parts) for parts in (("registry", "npmjs", "org"), ("security", "debian", "org"))]
FOLDERS = [f"/{folder}/" for folder in ("work", "root", "home", "Users")] + ["/tmp" + "/w/"]
# A folder at the root of the file system; not a part of a longer path or of a URL.
MACHINE_PATH = re.compile(r"(?<![\w.}\])$*-])(?:" + "|".join(FOLDERS) + ")")


def test_no_file_holds_a_path_of_one_machine(texts: dict[str, str]) -> None:
    found = [name for name, text in texts.items() if MACHINE_PATH.search(text)]
    assert not found, found


def test_a_path_of_one_machine_would_be_found() -> None:
    root = FOLDERS[1]
    assert MACHINE_PATH.search(f'open("{root}x")')
    assert MACHINE_PATH.search(f"see {root}x")
    assert not MACHINE_PATH.search(f"https://example.org{root}")
    assert not MACHINE_PATH.search(f"RUN_DIR{root}x")


def test_no_file_names_the_host_of_a_package_registry(texts: dict[str, str]) -> None:
    found = {name: host for name, text in texts.items() for host in HOSTS if host in text}
    assert not found, found


def test_every_text_file_is_utf_8_with_a_last_line_that_ends(texts: dict[str, str]) -> None:
    for name, text in texts.items():
        if not name.startswith("data_prep/sample/"):
            assert "\ufffd" not in text or name.endswith(".py"), f"{name} is not UTF-8"
            assert not text or text.endswith("\n"), f"{name} has no line feed at its end"


def test_the_licence_is_apache_2(texts: dict[str, str]) -> None:
    project = tomllib.loads(texts["pyproject.toml"])["project"]
    assert project["license"] == "Apache-2.0"
    assert re.search(r"Apache License\s+Version 2\.0, January 2004", texts["LICENSE"])
    assert "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION" in texts["LICENSE"]
    assert (ROOT / "LICENSE").stat().st_size > 10_000, "the whole text, not a notice"
