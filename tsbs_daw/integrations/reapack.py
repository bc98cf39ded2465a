"""Generates files for REAPER: an action for each preset, and the index from which ReaPack installs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

from tsbs_daw.core.errors import UsageError, shown
from tsbs_daw.integrations.reaper import ACTION, NAME, REAPACK, PresetEntry

MAIN = "tsbs-daw_Separate selected items.lua"

_PRESET_ACTION = """\
-- @description tsbs-daw: separate selected items, preset {name}
-- @noindex
-- @about
--   {description}
-- Made by `tsbs-daw reaper actions`.

local folder = (({{ reaper.get_action_context() }})[2]):match("^(.*[/\\\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
local selection = require("selection")
selection.selected_items(selection.options({{ preset = "{name}" }}))
"""


def preset_actions(presets: Iterable[PresetEntry]) -> dict[str, str]:
    """Return the script of an action for every preset, by file name.

    Raises:
        UsageError: The name of a preset cannot be a file name.
    """
    found = {}
    for preset in presets:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _.-]*", preset.name):
            raise UsageError(f"The preset {shown(preset.name)} cannot be the name of an action; rename it.")
        description = " ".join(preset.description.split())
        found[f"tsbs-daw_Separate selected items ({preset.name}).lua"] = _PRESET_ACTION.format(
            name=preset.name, description=description
        )
    return found


def header(text: str) -> dict[str, str]:
    """Return the ReaPack tags at the top of a script, with continuation lines joined."""
    tags: dict[str, str] = {}
    tag = None
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        if match := re.match(r"-- @(\w+) ?(.*)", line):
            tag = match[1]
            tags[tag] = match[2].strip()
        elif tag is not None:
            tags[tag] = f"{tags[tag]}\n{line[2:].strip()}".strip()
    return tags


def index(folder: Path, url: str, time: str) -> str:
    """Return index.xml, with one package that contains all actions and the library.

    Args:
        folder: The folder reaper_scripts/TSBS-DAW.
        url: URL of that folder's parent, pinned to a commit.
        time: Time of this version, such as 2026-01-31T12:00:00Z.

    Raises:
        UsageError: `url` is not an https URL, or `folder` does not contain the scripts.
    """
    if not re.match(r"https://\S+$", url):
        raise UsageError(f"{shown(url)} is not an https URL; give the one that serves reaper_scripts at a commit.")
    main = folder / MAIN
    if not main.is_file():
        raise UsageError(f"{shown(main)} does not exist; give the folder of the scripts.")
    tags = header(main.read_text(encoding="utf-8"))
    root = ElementTree.Element("index", version="1", name=REAPACK)
    category = ElementTree.SubElement(root, "category", name=NAME)
    package = ElementTree.SubElement(category, "reapack", name=MAIN, type="script", desc=tags["description"])
    version = ElementTree.SubElement(package, "version", name=tags["version"], author=tags["author"], time=time)
    ElementTree.SubElement(version, "changelog").text = tags["changelog"]
    for path in sorted(folder.glob(ACTION)):
        attributes = {"main": "main"} | ({} if path.name == MAIN else {"file": path.name})
        _source(version, url, path.name, attributes)
    for path in sorted(folder.glob("lib/*.lua")):
        _source(version, url, f"lib/{path.name}", {"file": f"lib/{path.name}"})
    for path in sorted(folder.glob("toolbar_icons/**/*.png")):
        name = path.relative_to(folder).as_posix()
        _source(version, url, name, {"file": name, "type": "data"})
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _source(version: ElementTree.Element, url: str, name: str, attributes: dict[str, str]) -> None:
    ElementTree.SubElement(version, "source", attributes).text = f"{url.rstrip('/')}/{NAME}/{quote(name)}"
