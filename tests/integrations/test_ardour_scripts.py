"""The list of scripts in use: what is written is run by real Lua, as Ardour does when it opens a session."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from timeouts import PATIENCE_S

from tsbs_daw.integrations import ardour
from tsbs_daw.integrations.ardour import SIGNALS, Script

LUA = shutil.which("lua5.3")
needs_lua = pytest.mark.skipif(LUA is None, reason="lua5.3 is not installed")

AWKWARD = 'ardour { name = "x" }\nfunction factory (a)\n\tlocal t = "scripts[7] = nil \\"\\\\ \\0 ♪"\n\treturn t\nend\n'
ACTION = Script("an action", AWKWARD, hook=False)
HOOK = Script("a hook", AWKWARD, hook=True)

# How Ardour writes its table of actions: each value by %q, functions as compiled code.
SERIALIZE = """
local function plain (o) return type (o) == "number" and tostring (o) or string.format ("%q", o) end
local function serialize (name, value)
  local text = name .. " = "
  if type (value) == "function" then return text .. string.format ("%q", string.dump (value, true)) end
  if type (value) ~= "table" then return text .. plain (value) .. " " end
  text = text .. "{} "
  for key, one in pairs (value) do text = text .. serialize (name .. "[" .. plain (key) .. "]", one) .. " " end
  return text
end
"""


def lua(program: str, tmp_path: Path) -> str:
    file = tmp_path / "program.lua"
    file.write_bytes(program.encode("latin-1"))
    done = subprocess.run([LUA, str(file)], capture_output=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode("latin-1")


def state(content: bytes, tag: str = "ActionScript") -> str:
    return base64.b64decode(next(ET.fromstring(content).iter(tag)).text or "").decode("latin-1")


def as_ardour_writes_it(content: bytes, tmp_path: Path) -> bytes:
    """The actions, loaded and written by Ardour."""
    program = f"{state(content)}\n{SERIALIZE}\nfor _, s in pairs (scripts) do s.f = load (s.f) end\n"
    root = ET.fromstring(content)
    text = lua(program + 'io.write (serialize ("scripts", scripts))', tmp_path)
    next(root.iter("ActionScript")).text = base64.b64encode(text.encode("latin-1")).decode()
    return ET.tostring(root)


def test_what_is_added_is_registered_and_what_is_removed_is_not():
    content = ardour.add_scripts(b"", [HOOK, ACTION], SIGNALS[7])
    assert ardour.registered_scripts(content) == {"a hook", "an action"}
    assert ardour.registered_scripts(ardour.add_scripts(content, [HOOK, ACTION], SIGNALS[7])) == {"a hook", "an action"}
    assert ardour.remove_scripts(content, ["a hook", "an action"]) == b""
    assert ardour.registered_scripts(ardour.remove_scripts(content, ["a hook"])) == {"an action"}


def test_other_scripts_keep_their_slots():
    theirs = [Script(f"their {number}", AWKWARD, hook=number == 2) for number in range(3)]
    content = ardour.add_scripts(b"", theirs, SIGNALS[7])
    both = ardour.add_scripts(content, [HOOK, ACTION], SIGNALS[7])
    assert ardour.registered_scripts(both) == {"their 0", "their 1", "their 2", "a hook", "an action"}
    left = ardour.remove_scripts(both, ["a hook", "an action"])
    assert ardour.registered_scripts(left) == {"their 0", "their 1", "their 2"}
    again = ardour.add_scripts(left, [ACTION], SIGNALS[7])
    assert 'scripts[3]["n"] = "an action"' in state(again)


def test_no_slot_is_taken_from_another_script():
    full = [Script(f"their {number}", AWKWARD, hook=False) for number in range(ardour.SLOTS)]
    content = ardour.add_scripts(b"", full, SIGNALS[7])
    with pytest.raises(ValueError, match="slots are taken"):
        ardour.add_scripts(content, [ACTION], SIGNALS[7])


@pytest.mark.parametrize("content", [b"<UIScripts>", b"<Session/>", b"\xff\xfe"])
def test_a_file_of_another_kind_is_refused(content: bytes):
    with pytest.raises(ValueError, match="it "):
        ardour.registered_scripts(content)


# How many signals a version has, and which is the timer of a tenth of a second: gtk2_ardour/luasignal_syms.h
@pytest.mark.parametrize(
    ("version", "signals", "timer"), [(7, 49, 47), (8, 50, 47), (9, 50, 47), (9, 52, 49)], ids=["7", "8", "9.0", "9.8"]
)
def test_the_hook_listens_to_the_timer(version: int, signals: int, timer: int):
    (hook,) = ET.fromstring(ardour.add_scripts(b"", [HOOK], SIGNALS[version])).iter("LuaCallback")
    bits = hook.get("signals", "")
    as_bitset = bits[:signals][::-1]  # std::bitset takes the first characters of a text that is too long
    assert as_bitset[timer] == "1" and bits.count("1") <= 2


@needs_lua
def test_lua_finds_the_scripts_text_and_its_factory(tmp_path: Path):
    content = ardour.add_scripts(b"", [ACTION], SIGNALS[7])
    program = f"{state(content)}\nio.write (scripts[1].n, '|', scripts[1].s, '|', load (scripts[1].f) (scripts[1].a))"
    name, text, made = lua(program, tmp_path).encode("latin-1").decode().split("|")
    assert (name, text, made) == ("an action", AWKWARD, 'scripts[7] = nil "\\ \0 ♪')


@needs_lua
def test_a_list_that_ardour_wrote_anew_is_understood(tmp_path: Path):
    theirs = Script('their "one"', AWKWARD, hook=False)
    content = as_ardour_writes_it(ardour.add_scripts(b"", [theirs, ACTION], SIGNALS[7]), tmp_path)
    assert ardour.registered_scripts(content) == {'their \\"one\\"', "an action"}
    left = as_ardour_writes_it(ardour.remove_scripts(content, ["an action"]), tmp_path)
    assert ardour.registered_scripts(left) == {'their \\"one\\"'}
    assert ardour.remove_scripts(content, ["an action", 'their \\"one\\"']) == b""


# What the scripts call is bound in every version that they are installed into


BINDINGS = json.loads((Path(__file__).parent / "data" / "ardour_bindings.json").read_text(encoding="utf-8"))
LUA_METHODS = {"gsub", "match", "gmatch", "format", "sub", "byte", "find", "rep", "read", "write", "close", "lines"}


def called_names(text: str) -> set[str]:
    """The methods and the dotted names of Ardour's own that a script uses."""
    code = re.sub(r"--[^\n]*", "", text)
    code = re.sub(r'"(?:[^"\\\n]|\\.)*"', '""', code)
    owners = "ARDOUR|PBD|Temporal|Editing|LuaDialog|LuaSignal|C|ArdourUI"
    dotted = re.findall(rf"\b(?:{owners})((?:\.\w+)+)", code)
    return set(re.findall(r":(\w+) \(", code)) - LUA_METHODS | {part for name in dotted for part in name.split(".")[1:]}


SCRIPTS = sorted(ardour.SCRIPTS.glob("*.lua"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_name_that_a_script_calls_is_bound_in_ardour_7_to_9(path: Path):
    text = path.read_text(encoding="utf-8")
    later = called_names(text) - set(BINDINGS["bound_in_all"])
    assert later <= BINDINGS["bound_from"].keys(), "bound in no version"
    for name in later:  # Ardour 7 and 8 do not have it
        block = text[text.index("pcall (function ()") : text.index("end)", text.index("pcall (function ()"))]
        assert name in block, f"{name} is bound from Ardour {BINDINGS['bound_from'][name]} on; call it in a pcall"


def test_a_name_that_is_not_bound_is_found():
    assert called_names('region:make_louder (1) -- region:quiet ()\nprint ("a:b (") Editing.Nothing = ARDOUR.A.B') == {
        "make_louder", "Nothing", "A", "B"
    }  # fmt: skip
    assert not {"make_louder", "Nothing"} & set(BINDINGS["bound_in_all"])


@pytest.mark.parametrize("version", BINDINGS["versions"])
def test_the_timer_is_listened_to_in_every_version(version: str):
    count, timer = BINDINGS["signals"][version]
    signals = SIGNALS[int(version.split(".")[0])]
    assert timer in signals.tenth and signals.count <= count, "a longer text would be read from its wrong end"
    assert signals.timer[::-1][timer] == "1" if timer < signals.count else 49 in signals.tenth
