"""The stand-in itself: what REAPER would refuse, misunderstand or crash at, fails here; and what it allows, works."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from reaper import mix
from reaper.model import Project
from reaper.signatures import Misuse
from reaper.stage import song_file
from reaper.stand_in import Reaper

UNDO = "reaper.Undo_BeginBlock2(0) {} reaper.Undo_EndBlock2(0, 'x', -1)"


@pytest.fixture
def reaper(tmp_path: Path, version: str) -> Reaper:
    reaper = Reaper(tmp_path / "resources", version)
    project = Project(tmp_path)
    (tmp_path / "Media").mkdir()
    project.add_item(project.add_track("Mix"), song_file(tmp_path / "a.wav", 1.0), 0.0, 1.0)
    reaper.open(project)
    return reaper


def run(reaper: Reaper, code: str, ticks: int = 3) -> None:
    path = reaper.folder / "script.lua"
    path.parent.mkdir(exist_ok=True)
    path.write_text(code + " reaper.defer(function() end)", encoding="utf-8")
    reaper.run(path)
    for _ in range(ticks):
        reaper.tick()


MISUSES = {
    "an unknown function": ("reaper.GetStems(0)", "there is no function reaper.GetStems"),
    "too many arguments": ("reaper.CountTracks(0, 1)", "2 arguments, and it takes 1"),
    "a missing argument": ("reaper.GetTrack(0)", "argument 2 (trackidx) is missing"),
    "nil for an argument": ("reaper.CountTrackMediaItems(nil)", "is missing"),
    "a string for a number": ("reaper.GetTrack(0, '1')", "is no integer"),
    "a fraction for an integer": ("reaper.GetTrack(0, 0.5)", "no integer representation"),
    "a number for a string": ("reaper.GetProjExtState(0, 'a', 1)", "is no string"),
    "a number for a boolean": ("reaper.SelectAllMediaItems(0, 0)", "is no boolean"),
    "an item for a track": (
        "reaper.CountTrackMediaItems(reaper.GetMediaItem(0, 0))",
        "is no MediaTrack",
    ),
    "a table for a handle": ("reaper.CountTrackMediaItems({})", "is no MediaTrack"),
    "an unknown parameter": ("reaper.GetMediaItemInfo_Value(reaper.GetMediaItem(0, 0), 'D_LEN')", "no parameter"),
    "an unknown setting": ("reaper.GetSetProjectInfo(0, 'RENDER_SETTING', 0, false)", "no parameter"),
    "a parameter that is only read": (
        UNDO.format("reaper.SetMediaTrackInfo_Value(reaper.GetTrack(0, 0), 'IP_TRACKNUMBER', 1)"),
        "can only be read",
    ),
    "a newer function without asking": ("reaper.GetNumRegionsOrMarkers(0)", "ask APIExists before"),
    "a change outside an undo step": ("reaper.InsertTrackInProject(0, 0, 0)", "outside an undo step"),
    "a cut outside an undo step": ("reaper.SplitMediaItem(reaper.GetMediaItem(0, 0), 0.5)", "outside an undo step"),
    "opening a project with a question": ("reaper.Main_openProject('a.RPP')", "asks the user"),
    "an undo step left open": ("reaper.Undo_BeginBlock2(0)", "ended inside an undo step"),
    "an undo step over two ticks": (
        "reaper.Undo_BeginBlock2(0) reaper.defer(function() reaper.Undo_EndBlock2(0, 'x', -1) end)",
        "ended inside an undo step",
    ),
    "an end without a begin": ("reaper.Undo_EndBlock2(0, 'x', -1)", "no undo step was begun"),
    "refresh left prevented": ("reaper.PreventUIRefresh(1)", "refresh prevented"),
    "refresh allowed too often": ("reaper.PreventUIRefresh(-1)", "more often than prevented"),
    "a misuse inside pcall": ("pcall(reaper.GetTrack, 0)", "is missing"),
    "a wrong pointer's type": ("reaper.ValidatePtr2(0, reaper.GetTrack(0, 0), 'MediaTrack')", "no pointer's type"),
    "a new global": ("stems = 4", "makes the global stems"),
    "an unknown global": ("local x = stems", "reads the global stems"),
    "writing into reaper": ("reaper.mine = 1", "writes reaper.mine"),
    "an error": ("error('oh')", "oh"),
    "an error in a deferred function": ("reaper.defer(function() error('oh') end)", "oh"),
    "a syntax error": ("local local", "script.lua"),
    "ending the program": ("os.exit()", "nil value"),
    "waiting for a program": ("reaper.ExecProcess('make tea', 0)", "waits for the program"),
    "an unknown action": ("reaper.Main_OnCommand(1234, 0)", "no action 1234"),
    "a long tick": ("for _ = 1, 3000 do reaper.CountTracks(0) end", "the tick took"),
    "a gfx variable that is none": ("gfx.width = 3", "is no variable"),
    "a source for two takes": (
        UNDO.format(
            "local i = reaper.GetMediaItem(0, 0) local s = reaper.GetMediaItemTake_Source(reaper.GetActiveTake(i))"
            " reaper.SetMediaItemTake_Source(reaper.AddTakeToMediaItem(i), s)"
        ),
        "belongs to another take",
    ),
    "leaving a replaced source behind": (
        UNDO.format(
            "local t = reaper.GetActiveTake(reaper.GetMediaItem(0, 0))"
            " local path = reaper.GetMediaSourceFileName(reaper.GetMediaItemTake_Source(t), '')"
            " reaper.SetMediaItemTake_Source(t, reaper.PCM_Source_CreateFromFile(path))"
        ),
        "was not destroyed",
    ),
    "switching tabs inside an undo step": (
        UNDO.format("reaper.SelectProjectInstance(reaper.EnumProjects(0, ''))"),
        "inside an undo step",
    ),
    "an answer without room for it": ("reaper.GetProjectName(0)", "older versions want a text to write into"),
    "folders that the panels do not show": (
        UNDO.format("reaper.SetMediaTrackInfo_Value(reaper.GetTrack(0, 0), 'I_FOLDERDEPTH', 1)"),
        "TrackList_AdjustWindows(false) was not called",
    ),
    "a window that is larger than the screen": ("gfx.init('x', 640, 888, 0, 0, 0)", "on a screen of 1366 x 728"),
    "a window that begins on the screen and ends below it": ("gfx.init('x', 640, 600, 0, 0, 200)", "beyond the screen"),
    "a text that goes beyond its window": (
        "gfx.init('x', 100, 100, 0, 0, 0) gfx.x, gfx.y = 0, 0 gfx.drawstr(('long '):rep(20))",
        "goes beyond the window",
    ),
    "a chunk with a block left open": (
        UNDO.format(
            "local i = reaper.GetMediaItem(0, 0) local _, c = reaper.GetItemStateChunk(i, '', false)"
            " reaper.SetItemStateChunk(i, c:gsub('>%s*$', ''), false)"
        ),
        "do not nest",
    ),
    "a take from before its item's chunk was set": (
        UNDO.format(
            "local i = reaper.GetMediaItem(0, 0) local t = reaper.GetActiveTake(i)"
            " local _, c = reaper.GetItemStateChunk(i, '', false) reaper.SetItemStateChunk(i, c, false)"
            " reaper.GetTakeName(t)"
        ),
        "this MediaItem_Take is gone",
    ),
    "one channel of a source that has two": (
        "local t = reaper.GetActiveTake(reaper.GetMediaItem(0, 0)) local a = reaper.CreateTakeAudioAccessor(t)"
        " reaper.GetAudioAccessorSamples(a, 44100, 1, 0, 100, reaper.new_array(100))",
        "as many channels as the source has",
    ),
    "destroying a take's source": (
        "reaper.PCM_Source_Destroy(reaper.GetMediaItemTake_Source(reaper.GetActiveTake(reaper.GetMediaItem(0, 0))))",
        "belongs to a take",
    ),
    "a handle from before an undo": (
        "local t = reaper.GetTrack(0, 0) "
        + UNDO.format("reaper.InsertTrackInProject(0, 0, 0)")
        + " reaper.Undo_DoUndo2(0) reaper.CountTrackMediaItems(t)",
        "this MediaTrack is gone",
    ),
    "a short buffer": (
        "local t = reaper.GetActiveTake(reaper.GetMediaItem(0, 0)) local a = reaper.CreateTakeAudioAccessor(t)"
        " reaper.GetAudioAccessorSamples(a, 44100, 2, 0, 100, reaper.new_array(100))",
        "too short",
    ),
}


@pytest.mark.parametrize("name", MISUSES)
def test_a_misuse_fails(name: str, reaper: Reaper):
    code, said = MISUSES[name]
    with pytest.raises(Misuse) as raised:
        run(reaper, code)
    assert said in str(raised.value)


def test_a_script_that_runs_is_not_begun_again_unless_it_gives_way(reaper: Reaper):
    loop = "local function loop() reaper.defer(loop) end loop()"
    run(reaper, loop)
    with pytest.raises(Misuse, match="runs already"):
        run(reaper, loop)
    reaper.quit()
    run(reaper, "reaper.set_action_options(3) " + loop)
    run(reaper, "reaper.set_action_options(3) " + loop)
    assert sum(script.running for script in reaper.scripts) == 1
    reaper.quit()
    for running in (1, 0, 1):
        run(reaper, "reaper.set_action_options(1) " + loop)
        assert sum(script.running for script in reaper.scripts) == running


def test_a_script_that_defers_nothing_leaves_an_undo_point(reaper: Reaper):
    path = reaper.folder / "short.lua"
    path.parent.mkdir(exist_ok=True)
    path.write_text("local x = reaper.CountTracks(0)")
    reaper.run(path)
    assert [step.label for step in reaper.projects[0].undo_steps] == ["short.lua"]


def test_a_source_that_was_offline_says_nothing_when_its_file_is_back(reaper: Reaper):
    reaper.projects[0].items[0].take.source.was_offline = True
    ask = "local s = reaper.GetMediaItemTake_Source(reaper.GetActiveTake(reaper.GetMediaItem(0, 0))) "
    run(reaper, ask + "assert(reaper.GetMediaSourceSampleRate(s) == 0 and reaper.GetMediaSourceLength(s) == 0)")


def test_an_accessor_comes_before_the_takes_envelopes(reaper: Reaper):
    (item,) = reaper.projects[0].items
    item.take.envelopes = {"VOLENV": [(0.0, 0.0), (1.0, 0.0)]}
    assert item.audio_at(np.arange(1000) / 44100, 2).any()
    assert not mix.item_sound(item, np.arange(1000) / 44100).any()


READ = """
local take = reaper.GetActiveTake(reaper.GetMediaItem(0, 0))
local accessor = reaper.CreateTakeAudioAccessor(take)
local buffer = reaper.new_array(200)
buffer.clear(9)
local function read(at)
  return reaper.GetAudioAccessorSamples(accessor, 44100, 2, at, 100, buffer)
end
"""


def test_an_accessor_gives_nothing_inside_a_coroutine(reaper: Reaper):
    run(
        reaper,
        READ
        + "coroutine.wrap(function() assert(read(0.1) == nil and buffer[1] == 9) end)() assert(read(0.1) == 1)"
        + " assert(buffer[1] ~= 9 and #buffer.table(1, 200) == 200)",
    )


def test_silence_leaves_the_buffer_as_it_was(reaper: Reaper):
    run(reaper, READ + "assert(read(5.0) == 0 and buffer[1] == 9)")


def test_an_accessor_plays_at_the_items_rate(reaper: Reaper):
    item = reaper.projects[0].items[0]
    item.take.values["D_PLAYRATE"], item.take.values["D_STARTOFFS"] = 2.0, 0.25
    sound = item.audio_at(np.arange(100) / 44100, 2)
    assert np.array_equal(sound, item.take.source.audio[11025:][:200:2])


def test_a_cut_makes_fades_at_both_of_its_ends_and_plays_on(reaper: Reaper):
    (left,) = reaper.projects[0].items
    whole = left.audio_at(np.arange(30000) / 44100, 2)
    cut = "assert(reaper.SplitMediaItem(reaper.GetMediaItem(0, 0), 0.25)) "
    run(reaper, UNDO.format(cut + "assert(reaper.SplitMediaItem(reaper.GetMediaItem(0, 0), 7) == nil)"))
    right = reaper.projects[0].items[1]
    assert left.guid != right.guid and (left.values["D_LENGTH"], right.values["D_POSITION"]) == (0.25, 0.25)
    assert (left.values["D_FADEOUTLEN"], right.values["D_FADEINLEN"]) == (0.01, 0.01)
    assert np.array_equal(right.audio_at(np.arange(1000) / 44100, 2), whole[11025:][:1000])


def test_reaper_knows_the_actions_that_were_in_its_list_when_it_began(reaper: Reaper):
    (reaper.folder / "Scripts").mkdir(parents=True)
    (reaper.folder / "Scripts" / "a.lua").touch()
    (reaper.folder / "reaper-kb.ini").write_text('SCR 4 0 RS12ab "Custom: a.lua" "a.lua"\n')
    ask = "assert((reaper.NamedCommandLookup('_RS12ab') ~= 0) == {})"
    run(reaper, ask.format("false"))
    again = reaper.quit()
    again.open(reaper.projects[0])
    run(again, ask.format("true"))


def test_a_saved_project_keeps_its_notes_but_for_what_its_file_cannot_hold(reaper: Reaper, tmp_path: Path):
    notes = (
        "local t = reaper.GetTrack(0, 0) "
        "reaper.GetSetMediaTrackInfo_String(t, 'P_EXT:a', '\"kept\"', true) "
        'reaper.GetSetMediaTrackInfo_String(t, "P_EXT:b", "all of \'`\\"", true)'
    )
    path = tmp_path / "kept.RPP"
    run(reaper, UNDO.format(notes) + f" reaper.Main_SaveProjectEx(0, '{path}', 0)")
    old = reaper.projects[0]
    run(reaper, f"reaper.Main_openProject('noprompt:{path}')")
    (track,) = reaper.projects[0].tracks
    assert reaper.projects[0] is not old and track.strings["P_EXT:a"] == '"kept"'
    assert track.strings["P_EXT:b"] == "all of ''\""


def test_peaks_need_building(reaper: Reaper):
    path = str(reaper.projects[0].folder / "a.wav")
    run(
        reaper,
        f"local s = reaper.PCM_Source_CreateFromFile('{path}') assert(reaper.PCM_Source_BuildPeaks(s, 0) > 0) "
        "while reaper.PCM_Source_BuildPeaks(s, 1) > 0 do end reaper.PCM_Source_BuildPeaks(s, 2) "
        "assert(reaper.PCM_Source_BuildPeaks(s, 0) == 0)",
    )


def test_a_folder_is_listed_from_a_cache(reaper: Reaper):
    place = reaper.projects[0].folder / "listed"
    place.mkdir()
    (place / "one").touch()
    run(
        reaper,
        f"local p = '{place}' assert(reaper.EnumerateFiles(p, 0) == 'one') "
        "io.open(p .. '/a', 'w'):close() assert(reaper.EnumerateFiles(p, 0) == 'one') "
        "reaper.EnumerateFiles(p, -1) assert(reaper.EnumerateFiles(p, 0) == 'a')",
    )


def test_undo_brings_back_what_was_there(reaper: Reaper):
    project = reaper.projects[0]
    run(reaper, UNDO.format("reaper.SetMediaTrackInfo_Value(reaper.GetTrack(0, 0), 'B_MUTE', 1)"))
    old = project.tracks[0]
    assert project.undo() and not old.alive and project.tracks[0].values["B_MUTE"] == 0
    assert project.items[0].guid == old.items[0].guid


def test_newer_functions_may_be_called_after_asking(reaper: Reaper):
    with pytest.raises(Misuse, match="does not know what it does"):
        run(reaper, "if reaper.APIExists('GetNumRegionsOrMarkers') then reaper.GetNumRegionsOrMarkers(0) end")


def test_words_between_scripts_are_forgotten_at_the_end_unless_kept(reaper: Reaper):
    run(reaper, "reaper.SetExtState('a', 'b', 'c', false) reaper.SetExtState('a', 'd', 'e', true)")
    assert reaper.quit().ext_state == {("a", "d"): "e"}
