"""A real Ardour on a display of its own, with a configuration, a home and a session that nobody else sees."""

from __future__ import annotations

import base64
import shutil
import subprocess
import time
import xml.etree.ElementTree as ET
from pathlib import Path

from cli.program import environment
from programs import display, process
from timeouts import PATIENCE_S

from tsbs_daw.integrations import ardour

VERSION = 7
PROGRAMS = ("ardour", f"ardour{VERSION}-lua", "Xvfb")
SUPERCLOCK_HZ = 282_240_000
RATE = 48_000

_CONFIG = f"""<?xml version="1.0" encoding="UTF-8"?>
<Ardour><Config>
<Option name="try-autostart-engine" value="1"/>
<Option name="discover-plugins-on-start" value="0"/>
<Option name="hide-dummy-backend" value="0"/>
</Config><Extra><AudioMIDISetup><EngineStates>
<State backend="None (Dummy)" driver="Normal Speed" device="Silence" input-device="" output-device=""
 sample-rate="{RATE}" buffer-size="1024" n-periods="0" input-latency="0" output-latency="0" lm-input="" lm-output=""
 active="1" use-buffered-io="0" midi-option="1 in, 1 out, Silence" lru="2000000000"><MIDIDevices/></State>
</EngineStates></AudioMIDISetup></Extra></Ardour>
"""


def missing() -> list[str]:
    """The programs that the round trip needs and this machine has not."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


class Studio:
    """Everything below one folder: Ardour's configuration, a session, what the driver says."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.config = folder / "config" / f"ardour{VERSION}"
        self.session = folder / "the band's söng ♪" / "song.ardour"
        for name in ("home", "cache", "data", "runtime"):
            (folder / name).mkdir(parents=True)
        (folder / "runtime").chmod(0o700)
        self.config.mkdir(parents=True)
        (self.config / f".a{VERSION}").touch()  # Ardour asks for nothing at its first start
        (self.config / "config").write_text(_CONFIG, encoding="utf-8")

    @property
    def environment(self) -> dict[str, str]:
        below = {
            "HOME": "home",
            "XDG_CONFIG_HOME": "config",
            "XDG_CACHE_HOME": "cache",
            "XDG_DATA_HOME": "data",
            "XDG_RUNTIME_DIR": "runtime",
        }
        return environment(self.folder / "home") | {key: str(self.folder / name) for key, name in below.items()}

    def new_session(self) -> None:
        script = self.folder / "new_session.lua"
        script.write_text(
            f'local s = assert (create_session ("{self.session.parent}", "{self.session.stem}", {RATE}))\n'
            's:save_state ("", false, false, false, false, false) close_session () quit ()\n'
        )
        done = subprocess.run(
            [PROGRAMS[1], str(script)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert self.session.is_file(), done.stdout + done.stderr

    def drive(self, scene: str) -> None:
        """Put the driver's hook beside the installed scripts."""
        for name in ("ready", "failed"):
            (self.folder / name).unlink(missing_ok=True)
        text = (Path(__file__).parent / "driver.lua").read_text(encoding="utf-8")
        text = text.replace("@FOLDER@", str(self.folder)).replace("@SCENE@", scene)
        path = self.config / ardour.UI_SCRIPTS
        root = ET.fromstring(path.read_bytes())
        hooks = root.find("ActionHooks")
        assert hooks is not None
        for hook in [hook for hook in hooks if hook.get("name") == "driver"]:
            hooks.remove(hook)
        bits = ardour.SIGNALS[VERSION].timer
        hook = ET.SubElement(
            hooks, "LuaCallback", {"lua": "Lua 5.3", "id": "900200", "name": "driver", "signals": bits}
        )
        state = f's = {{}} s["n"] = "driver" s["s"] = "--" s["f"] = {ardour.lua_quoted(text)} s["a"] = {{}} '
        hook.text = base64.b64encode(state.encode()).decode()
        path.write_bytes(ET.tostring(root, encoding="UTF-8", xml_declaration=True))

    def play(self, scene: str, *, meanwhile=lambda _: None, picture: Path | None = None) -> None:
        """Start Ardour with the session, wait until the driver is ready, and end it.

        Args: meanwhile: called again and again with the environment that Ardour runs in, its display among it
        """
        self.drive(scene)
        with display() as name, (self.folder / "ardour.log").open("ab") as log:
            running = self.environment | {"DISPLAY": name}
            with process(
                ["ardour", "-a", "-n", "-d", "-O", str(self.session)], running, stdout=log, stderr=log
            ) as ardour:
                end = time.monotonic() + PATIENCE_S
                while not (self.folder / "ready").exists():
                    assert not (self.folder / "failed").exists(), (self.folder / "failed").read_text()
                    assert ardour.poll() is None and time.monotonic() < end, self.told(ardour.poll())
                    meanwhile(running)
                    if (self.folder / "shown").exists() and not (self.folder / "seen").exists():
                        if picture is not None:
                            take_picture(picture, running)
                        (self.folder / "seen").touch()
                    time.sleep(0.1)

    def told(self, code: int | None) -> str:
        """Where it stands, for the message of a failed test."""
        files = [self.folder / "scene", self.session.parent / "tsbs-daw.json", self.folder / "ardour.log"]
        texts = [f"{file.name}: {file.read_text(errors='replace')[-3000:]}" for file in files if file.exists()]
        return "\n".join([f"Ardour's exit code: {code}", *texts])


def press_in_window(title: str, keys: list[str], env: dict[str, str]) -> bool:
    """Whether there is a window of this name; if there is, these keys are pressed in it. Needs xdotool."""
    found = subprocess.run(["xdotool", "search", "--name", title], env=env, capture_output=True, text=True, check=False)
    if not found.stdout.strip():
        return False
    window = found.stdout.split()[-1]
    subprocess.run(["xdotool", "windowfocus", "--sync", window, "key", "--delay", "100", *keys], env=env, check=False)
    return True


def take_picture(path: Path, env: dict[str, str]) -> None:
    """Of the whole screen, without the empty rest. Needs ImageMagick."""
    arguments = ["import", "-window", "root", "-trim", "+repage", "-strip", str(path)]
    subprocess.run(arguments, env=env, timeout=60, check=True)


def samples(time_: str) -> int:
    """Of a time in a session file: "a" and superclock ticks; it must be a whole sample."""
    assert time_.startswith("a"), time_
    count, rest = divmod(int(time_[1:]) * RATE, SUPERCLOCK_HZ)
    assert rest == 0, f"{time_} is between two samples"
    return count


class SavedTrack:
    """A track as the session file has it."""

    def __init__(self, root: ET.Element, route: ET.Element, audio: Path):
        self.name = route.get("name", "")
        self.comment = route.findtext("Comment", "")
        look = route.find("PresentationInfo")
        self.order = int(look.get("order", "0")) if look is not None else 0
        self.color = f"#{int(look.get('color', '0')) >> 8:06x}" if look is not None else ""
        (playlist,) = [one for one in root.find("Playlists") if one.get("id") == route.get("audio-playlist")]
        self.region, *more = playlist.findall("Region")
        assert not more or not self.comment.startswith("tsbs-daw "), "a stem's track has one region"
        length, position = self.region.get("length", "").split("@")
        self.samples, self.position, self.start = samples(length), samples(position), samples(self.region.get("start"))
        named = {source.get("id"): source.get("name") for source in root.find("Sources")}
        channels = int(self.region.get("channels", "0"))
        self.files = [audio / named[self.region.get(f"source-{channel}")] for channel in range(channels)]


def saved_tracks(session: Path) -> list[SavedTrack]:
    root = ET.parse(session).getroot()
    (audio,) = (session.parent / "interchange").glob("*/audiofiles")
    routes = [route for route in root.find("Routes") if route.get("audio-playlist")]
    return sorted((SavedTrack(root, route, audio) for route in routes), key=lambda track: track.order)
