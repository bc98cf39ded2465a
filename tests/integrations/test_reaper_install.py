"""The scripts' way into a REAPER and out again: nothing of the user's is lost."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tsbs_daw.core.errors import OutputError, UsageError
from tsbs_daw.integrations import reapack, reaper, reaper_application
from tsbs_daw.integrations.reaper_application import find_folder, usual_folder

KEYS = (
    "KEY 1 83 _RS81d700e4103e0b7cd24bc80c9f4ad8ab647eeb8a 0\r\n"
    'SCR 4 0 RS0123456789abcdef0123456789abcdef01234567 "Custom: mine.lua" "mine.lua"\r\n'
    'ACT 0 0 "3f" "Custom: Ümläut \\"quoted\\"" 40044 1013\r\n'
    "a line of a later version"
).encode()
SETTINGS = {"schema": 1, "version": "1", "spool": "/spool"}


@pytest.fixture
def resource(tmp_path: Path) -> Path:
    (tmp_path / "reaper.ini").touch()
    (tmp_path / "reaper-kb.ini").write_bytes(KEYS)
    (tmp_path / "Scripts").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"HOME": "/home/a"}, "/home/a/.config/REAPER"),
        ("linux", {"HOME": "/home/a", "XDG_CONFIG_HOME": "/conf"}, "/conf/REAPER"),
        ("darwin", {"HOME": "/Users/a"}, "/Users/a/Library/Application Support/REAPER"),
        ("win32", {"USERPROFILE": "C:/a", "APPDATA": "C:/a/Roaming"}, "C:/a/Roaming/REAPER"),
        ("win32", {"USERPROFILE": "D:/a"}, "D:/a/AppData/Roaming/REAPER"),
    ],
)  # fmt: skip
def test_the_resource_folder_of_each_system(platform: str, environment: dict[str, str], expected: str):
    assert usual_folder(platform, environment).as_posix() == expected


def test_a_folder_without_reapers_settings_is_wrong_use(tmp_path: Path):
    with pytest.raises(UsageError, match=r"has no reaper\.ini"):
        find_folder(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        find_folder(tmp_path / "gone")
    (tmp_path / "reaper.ini").touch()
    assert find_folder(tmp_path) == tmp_path


def test_all_actions_are_registered_and_the_rest_of_the_file_stays(resource: Path):
    found = reaper.install(resource, SETTINGS)
    content = (resource / "reaper-kb.ini").read_bytes()
    assert content.startswith(KEYS + b"\r\n") and content.count(b"\n") == content.count(b"\r\n")
    assert len(found.actions) == len(list(reaper.source_folder().glob("tsbs-daw_*.lua"))) and not found.missing
    assert (resource / "reaper-kb.ini.before-tsbs-daw").read_bytes() == KEYS
    assert (found.scripts / "lib" / "require.lua").is_file() and not list(found.scripts.rglob(".*"))
    assert found.version == "1" and found.spool == "/spool"


def test_installing_again_changes_nothing(resource: Path):
    reaper.install(resource, SETTINGS)
    before = {path: path.read_bytes() for path in resource.rglob("*") if path.is_file()}
    reaper.install(resource, SETTINGS)
    assert {path: path.read_bytes() for path in resource.rglob("*") if path.is_file()} == before


def test_an_update_removes_scripts_that_are_no_more(resource: Path):
    folder = reaper.install(resource, SETTINGS).scripts
    (folder / "lib" / "old.lua").touch()
    reaper.install(resource, SETTINGS)
    assert not (folder / "lib" / "old.lua").exists()
    assert sorted(path.name for path in (resource / "Scripts").iterdir()) == ["TSBS-DAW", "__startup.lua"]


def test_uninstalling_gives_back_the_files_as_they_were(resource: Path):
    startup = resource / "Scripts" / "__startup.lua"
    startup.write_bytes(b"-- mine\r\nreaper.defer(f)")
    (resource / "reaper-kb.ini").write_bytes(KEYS + b"\r\n")
    reaper.install(resource, SETTINGS)
    assert b"tsbs-daw begin" in startup.read_bytes()
    found = reaper.uninstall(resource)
    assert startup.read_bytes() == b"-- mine\r\nreaper.defer(f)\r\n"
    assert (resource / "reaper-kb.ini").read_bytes() == KEYS + b"\r\n"
    assert not (resource / "Scripts" / "TSBS-DAW").exists() and found.version is None and not found.actions


def test_a_startup_script_whose_block_lost_its_end_is_left_as_it_is(resource: Path):
    startup = resource / "Scripts" / "__startup.lua"
    reaper.install(resource, SETTINGS)
    damaged = startup.read_bytes().replace(b"-- tsbs-daw end", b"") + b"reaper.defer(mine)\n"
    startup.write_bytes(damaged)
    for change in (lambda: reaper.uninstall(resource), lambda: reaper.install(resource, SETTINGS)):
        with pytest.raises(OutputError, match=r"__startup\.lua' has a line `-- tsbs-daw begin` and no line"):
            change()
    assert startup.read_bytes() == damaged


@pytest.mark.parametrize("text", ["[]", "3", '"text"', "null", "{"])
def test_a_damaged_note_of_what_is_installed_is_none(resource: Path, text: str):
    reaper.install(resource, SETTINGS)
    (resource / "Data" / "TSBS-DAW" / "installed.json").write_text(text)
    assert reaper.installation(resource).version is None


def test_toolbar_icons_come_and_go_and_those_of_others_stay(resource: Path):
    icons = resource / "Data" / "toolbar_icons"
    (icons / "200").mkdir(parents=True)
    (icons / "200" / "mine.png").touch()
    reaper.install(resource, SETTINGS)
    shipped = reaper.source_folder() / "toolbar_icons"
    names = {path.relative_to(shipped) for path in shipped.rglob("*.png")}
    assert {path.relative_to(icons) for path in icons.rglob("*.png")} == names | {Path("200/mine.png")}
    assert len(names) == 12 and not (resource / "Scripts" / "TSBS-DAW" / "toolbar_icons").exists()
    reaper.uninstall(resource)
    assert [path.name for path in icons.rglob("*.png")] == ["mine.png"] and not (icons / "150").exists()


def test_the_toolbar_icons_are_strips_as_their_script_draws_them():
    from importlib.util import module_from_spec, spec_from_file_location

    import numpy as np
    from matplotlib.image import imread

    spec = spec_from_file_location("toolbar_icons", Path(__file__).parents[2] / "tools" / "toolbar_icons.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    for folder, scale in module.SCALES.items():
        for name, picture in module.PICTURES.items():
            drawn = module.strip(picture, scale)
            assert drawn.shape == (round(30 * scale), round(90 * scale), 4)
            kept = imread(reaper.source_folder() / "toolbar_icons" / folder / f"{name}.png")
            assert np.array_equal(np.rint(kept * 255).astype(int), drawn.astype(int)), (
                "run python tools/toolbar_icons.py"
            )
            states = np.split(drawn, 3, axis=1)
            assert not np.array_equal(states[0], states[1]) and not np.array_equal(states[0], states[2])


def test_scripts_that_reaper_registered_by_their_whole_path_go_too(resource: Path):
    line = f'SCR 4 0 RSabc "Custom: x.lua" "{resource.as_posix()}/Scripts/TSBS-DAW/x.lua"\r\n'.encode()
    left = reaper.remove_scripts(KEYS + b"\r\n" + line, "TSBS-DAW", resource / "Scripts")
    assert left == KEYS + b"\r\n"


# Facts of three users' reaper-kb.ini files: Windows (REAPER 6 and 7), macOS, and an older Windows.
GENUINE_IDS = [
    ("Cockos/lyrics.lua", "RS1ee9bb229dabffe151848d7efa3c10f748e1a1cf"),
    ("Cockos/Default_7.0_theme_adjuster.lua", "RS6c2efb3f983d062c88752f161da4cbbd6ab222e9"),
    ("MPL Scripts/FX/mpl_LearnEditor.lua", "RSce28e3180c569205043e98df0de08668bf1119b8"),
    ("ReverseOrderOfSelectedTracks.lua", "RSd7558e93c28e6d638d7d1ccbe6d2c8d7ad55bcbf"),
    ("Airon_Colour Swatch.lua", "RS17bef63f6e624b3c2613c553ac6bcb2763724123"),
    (
        "/Users/Steve/Downloads/Rename Label with Track-PositionOrder and A-Takes.lua",
        "RSfefb9b6ad8c8e793ee541657061a7f6ed0bc65fa",
    ),
]


@pytest.mark.parametrize(("path", "expected"), GENUINE_IDS)
def test_an_action_has_the_id_that_reaper_gives_it(path: str, expected: str):
    assert reaper.action_id(path) == expected


def reapack_copy(resource: Path, repository: str = reaper.REAPACK) -> Path:
    """The scripts as ReaPack installs them: Scripts/<repository>/<category>/<file>, and a line for each action."""
    folder = resource / "Scripts" / repository / reaper.NAME
    shutil.copytree(reaper.source_folder(), folder)
    lines = "".join(f'SCR 4 0 RS{n} "x" "{folder.parent.name}/{reaper.NAME}/x{n}.lua"\n' for n in range(2))
    (resource / "reaper-kb.ini").write_bytes(KEYS + b"\r\n" + lines.encode())
    return folder


def test_beside_reapacks_copy_a_second_one_is_refused(resource: Path):
    folder = reapack_copy(resource, "my repositories")
    before = sorted(folder.rglob("*")), (resource / "reaper-kb.ini").read_bytes()
    with pytest.raises(UsageError, match="--settings-only"):
        reaper.install(resource, SETTINGS)
    assert (sorted(folder.rglob("*")), (resource / "reaper-kb.ini").read_bytes()) == before


def test_reapacks_copy_gets_settings_startup_and_the_users_own_actions(resource: Path):
    folder = reapack_copy(resource)
    own = {"tsbs-daw_Separate selected items (mine).lua": "-- Made by `tsbs-daw reaper actions`.\n"}
    found = reaper.install(resource, SETTINGS, scripts=False, more_actions=own)
    assert found.reapack and found.scripts == folder and found.version == "1" and not found.missing
    assert f"TSBS-DAW ReaPack/TSBS-DAW/{next(iter(own))}" in found.actions
    assert "TSBS-DAW ReaPack/TSBS-DAW" in (resource / "Scripts" / "__startup.lua").read_text()
    reaper.install(resource, SETTINGS, scripts=False)
    assert sorted(path.name for path in folder.glob("*.lua")) == sorted(
        path.name for path in reaper.source_folder().glob("*.lua")
    )


def test_the_startup_script_finds_reapacks_copy_whatever_its_repository_is_called(resource: Path):
    reapack_copy(resource, "my repositories")
    reaper.install(resource, SETTINGS, scripts=False)
    assert '"my repositories/TSBS-DAW"' in (resource / "Scripts" / "__startup.lua").read_text()


def test_a_second_copy_that_reapack_brought_later_is_named(resource: Path):
    from tsbs_daw.cli.reaper import _reaper_findings

    assert _reaper_findings(reaper.install(resource, SETTINGS)) == []
    folder = reapack_copy(resource)
    found = reaper.installation(resource)
    (finding,) = _reaper_findings(found)
    assert str(resource / "Scripts" / "TSBS-DAW") in finding["what"] and str(folder) in finding["what"]
    assert finding["status"] == "problem" and "reaper uninstall" in finding["advice"]
    assert _reaper_findings(reaper.uninstall(resource)) == []


def test_a_spool_without_an_ascii_spelling_is_named_on_windows(resource: Path):
    from tsbs_daw.cli.reaper import _reaper_findings

    found = reaper.install(resource, SETTINGS | {"spool": "C:/Users/Jörg/spool"})
    (finding,) = _reaper_findings(found, "win32")
    assert "Jörg" in finding["what"] and "TSBS_DAW_HOME" in finding["advice"]
    assert _reaper_findings(found, "linux") == []


def test_uninstalling_leaves_reapacks_copy_alone(resource: Path):
    reaper.install(resource, SETTINGS)
    folder = reapack_copy(resource)
    found = reaper.uninstall(resource)
    assert folder.is_dir() and found.reapack and not (resource / "Scripts" / "TSBS-DAW").exists()
    assert (resource / "reaper-kb.ini").read_bytes().count(b"TSBS-DAW ReaPack/TSBS-DAW/x") == 2


def test_a_spool_below_a_name_outside_ascii_is_spelt_in_ascii_on_windows(tmp_path: Path, monkeypatch):
    folder = tmp_path / "Jörg"
    monkeypatch.setattr(reaper_application, "_short_name", lambda path: "C:/Users/JRG~1/tsbs-daw")
    assert reaper_application.ascii_spelling(folder, "linux") == folder and not folder.exists()
    assert reaper_application.ascii_spelling(folder, "win32") == Path("C:/Users/JRG~1/tsbs-daw")
    monkeypatch.setattr(reaper_application, "_short_name", lambda path: "")
    assert reaper_application.ascii_spelling(folder, "win32") == folder


def test_an_id_of_reapers_own_is_kept(resource: Path):
    line = b'SCR 4 0 RSown "Custom: tsbs-daw_Jobs.lua" TSBS-DAW/tsbs-daw_Jobs.lua\n'
    assert reaper.add_scripts(line, ["TSBS-DAW/tsbs-daw_Jobs.lua"]) == line


def test_without_a_list_of_actions_one_is_made(resource: Path):
    (resource / "reaper-kb.ini").unlink()
    assert reaper.install(resource, SETTINGS).actions
    reaper.uninstall(resource)
    assert (resource / "reaper-kb.ini").read_bytes() == b""


def test_the_list_of_actions_keeps_its_permissions_and_survives_a_failed_write(resource: Path):
    keys = resource / "reaper-kb.ini"
    keys.chmod(0o640)
    (resource / "reaper-kb.ini.tsbs-daw.tmp").mkdir()
    with pytest.raises(OutputError, match="The file is unchanged"):
        reaper.rewrite(keys, b"new")
    assert keys.read_bytes() == KEYS
    (resource / "reaper-kb.ini.tsbs-daw.tmp").rmdir()
    assert reaper.rewrite(keys, b"new") and not reaper.rewrite(keys, b"new")
    assert stat.S_IMODE(keys.stat().st_mode) == 0o640


def test_settings_alone_for_scripts_that_reapack_will_bring(resource: Path):
    reaper.install(resource, SETTINGS, scripts=False)
    assert not (resource / "Scripts" / "TSBS-DAW").exists() and (resource / "reaper-kb.ini").read_bytes() == KEYS
    assert "file_exists" in (resource / "Scripts" / "__startup.lua").read_text()
    assert json.loads((resource / "Data/TSBS-DAW/installed.json").read_text()) == SETTINGS


@pytest.mark.parametrize("home", ['/with"quote', "/with$(dollar)", "/with\nnewline", "/with\\backslash"])
def test_a_path_that_cannot_be_quoted_safely_gives_no_command(home: str):
    assert reaper_application.start_command(Path(home), Path("/usr/bin/python3"), "linux") is None


def test_the_command_that_starts_a_daemon_is_quoted():
    command = reaper_application.start_command(Path("/home/a b"), Path("/opt/my python/bin/python"), "linux")
    assert command == '"/opt/my python/bin/python" -m tsbs_daw reaper serve --home "/home/a b"'


def test_on_windows_no_console_window_is_opened(tmp_path: Path):
    (tmp_path / "pythonw.exe").touch()
    command = reaper_application.start_command(Path("C:/home"), tmp_path / "python.exe", "win32")
    assert "pythonw.exe" in command


def test_the_index_lists_every_file_once_with_its_url():
    folder = reaper.source_folder()
    root = ElementTree.fromstring(reapack.index(folder, "https://example.org/0abc/", "2026-01-31T12:00:00Z"))
    (package,) = root.iter("reapack")
    files = [source.get("file", package.get("name")) for source in package.iter("source")]
    expected = [*folder.rglob("*.lua"), *folder.rglob("*.png")]
    assert sorted(files) == sorted(path.relative_to(folder).as_posix() for path in expected)
    assert {source.get("type") for source in package.iter("source") if source.get("file", "").endswith(".png")} == {
        "data"
    }
    mains = [source for source in package.iter("source") if source.get("main")]
    assert len(mains) == len(list(folder.glob("*.lua")))
    assert mains[-1].text.startswith("https://example.org/0abc/TSBS-DAW/tsbs-daw_") and " " not in mains[-1].text


def test_an_index_needs_a_secure_url():
    with pytest.raises(UsageError, match="not an https URL"):
        reapack.index(reaper.source_folder(), "ftp://x", "2026-01-31T12:00:00Z")
