"""REAPER's functions on projects, tracks, items and takes. What changes a project outside an undo step is a misuse."""

from __future__ import annotations

from typing import Any

from reaper import chunks
from reaper.functions_effects import EffectFunctions
from reaper.model import Handle, Item, Project, Source, Take, Track, kill
from reaper.signatures import Misuse

READ_ONLY = {"IP_TRACKNUMBER", "P_TRACK", "IP_ITEMNUMBER", "I_TCPH", "I_TCPY", "I_WNDH", "B_MUTE_ACTUAL"}


class ProjectFunctions(EffectFunctions):
    """Mixed into the stand-in, which has `projects` (the open ones; the first is in front) and `ui_locks`."""

    projects: list[Project]
    folders_changed = False  # and the panels do not show it yet

    def _project_of(self, handle: Handle) -> Project:
        if isinstance(handle, Take):
            handle = handle.item
        if isinstance(handle, Item):
            handle = handle.track
        return next(project for project in self.projects if handle in project.tracks)

    def _changing(self, name: str, handle: Handle) -> None:
        project = handle if isinstance(handle, Project) else self._project_of(handle)
        if project.undo_depth < 1:
            raise Misuse(f"{name}: the project is changed outside an undo step")

    # Projects

    def EnumProjects(self, index):
        index = 0 if index == -1 else index
        if index >= len(self.projects):
            return None, ""
        project = self.projects[index]
        return project, str(project.folder / project.name) if project.name else ""

    def GetProjectName(self, project):
        return project.name

    def GetProjectPathEx(self, project):
        return str(project.folder / "Media")

    def GetProjExtState(self, project, section, key):
        value = project.ext_state.get((section, key), "")
        return len(value), value

    def SetProjExtState(self, project, section, key, value):
        project.ext_state[section, key] = value
        return len(value)

    def MarkProjectDirty(self, project):
        project.is_dirty = True

    def GetSetProjectInfo(self, project, name, value, is_set):
        if is_set:
            project.info[name] = float(value)
        return project.sample_rate if name == "PROJECT_SRATE" else project.info.get(name, 0.0)

    def GetSetProjectInfo_String(self, project, name, value, is_set):
        if is_set:
            project.info_strings[name] = value
        return True, project.info_strings.get(name, "")

    def GetSet_LoopTimeRange2(self, project, is_set, is_loop, start, end, seek):
        if is_set:
            project.time_selection = (start, end)
        return project.time_selection

    def EnumProjectMarkers3(self, project, index):
        if index >= len(project.regions):
            return 0, False, 0.0, 0.0, "", 0, 0
        start, end, name = project.regions[index]
        return index + 1, end > start, start, end, name, index + 1, 0

    def GetCursorPositionEx(self, project):
        return project.cursor

    def GetLastMarkerAndCurRegion(self, project, time):
        inside = [
            number for number, (start, end, _) in enumerate(project.regions) if end > start and start <= time < end
        ]
        return -1, inside[0] if inside else -1

    def AddProjectMarker2(self, project, is_region, start, end, name, wanted, color):
        project.regions.append((start, end if is_region else start, name))
        return len(project.regions)

    # Tempo map

    def CountTempoTimeSigMarkers(self, project):
        return len(project.tempo)

    def FindTempoTimeSigMarker(self, project, time):
        """API text: the marker "that falls at or before this time position"."""
        return sum(marker["time"] <= time for marker in project.tempo) - 1

    def GetTempoTimeSigMarker(self, project, index):
        marker = project.tempo[index]
        return True, marker["time"], 0, 0.0, marker["bpm"], *(marker["signature"] or (-1, -1)), False

    def SetTempoTimeSigMarker(self, project, index, time, measure, beat, bpm, beats, unit, is_linear):
        """A signature begins a bar: without the flag 4 (an own short bar before it; SWS and project files have it) the
        marker moves to the next bar line. Items whose time base is beats go along (API text of C_BEATATTACHMODE)."""
        self._changing("SetTempoTimeSigMarker", project)
        if (measure, beat) != (-1, -1) or (beats == 0) != (unit == 0):
            raise Misuse("SetTempoTimeSigMarker: a time, or a measure and a beat; a whole signature, or none")
        marker = {"time": time, "bpm": bpm, "signature": None, "flags": 0} if index == -1 else project.tempo[index]
        before = [other for other in project.tempo if other["time"] < time and other is not marker]
        if index == -1:
            project.tempo.append(marker)
        marker |= {"time": time, "bpm": bpm, "signature": (beats, unit) if beats else marker["signature"]}
        if beats and not marker["flags"] & 4:
            bar_s = 4 * 60 / (before[-1]["bpm"] if before else 120)
            marker["time"] = -(-time // bar_s) * bar_s
        project.tempo.sort(key=lambda other: other["time"])
        ratio = (before[-1]["bpm"] if before else 120) / bpm
        for item in project.items:
            if item.values["C_BEATATTACHMODE"] != 0 and item.values["D_POSITION"] + item.values["D_LENGTH"] > time:
                item.values["D_LENGTH"] *= ratio
        return True

    def GetSetTempoTimeSigMarkerFlag(self, project, index, flag, is_set):
        if is_set:
            self._changing("GetSetTempoTimeSigMarkerFlag", project)
            project.tempo[index]["flags"] = flag
        return project.tempo[index]["flags"]

    def UpdateTimeline(self):
        return None

    def GetProjectStateChangeCount(self, project):
        return project.changes

    def Master_GetPlayRate(self, project):
        return project.playrate

    def Undo_BeginBlock2(self, project):
        project.begin()

    def Undo_EndBlock2(self, project, label, flags):
        if project.undo_depth < 1:
            raise Misuse("Undo_EndBlock2: no undo step was begun")
        project.end(label)

    def Undo_CanUndo2(self, project):
        return project.undo_steps[-1].label if project.undo_steps else None

    def Undo_DoUndo2(self, project):
        if project.undo_depth:
            raise Misuse("Undo_DoUndo2: inside an undo step")
        return int(project.undo())

    def PreventUIRefresh(self, count):
        self.ui_locks += count
        if self.ui_locks < 0:
            raise Misuse("PreventUIRefresh: allowed more often than prevented")

    def UpdateArrange(self):
        self.updates += 1

    # Tracks

    def CountTracks(self, project=None):
        return len((project or self.projects[0]).tracks)

    def GetTrack(self, project, index):
        return project.tracks[index] if 0 <= index < len(project.tracks) else None

    def CountSelectedTracks(self, project):
        return sum(track.values["I_SELECTED"] > 0 for track in project.tracks)

    def GetSelectedTrack(self, project, index):
        selected = [track for track in project.tracks if track.values["I_SELECTED"]]
        return selected[index] if index < len(selected) else None

    def InsertTrackInProject(self, project, index, flags):
        self._changing("InsertTrackInProject", project)
        project.tracks.insert(min(max(index, 0), len(project.tracks)), Track())

    def InsertTrackAtIndex(self, index, defaults):
        self.InsertTrackInProject(self.projects[0], index, 0)

    def TrackList_AdjustWindows(self, minor):
        """API text: not minor: both panels. Until then, new tracks and folders may be drawn as they were."""
        for project in self.projects:
            for place, track in enumerate(project.tracks):
                track.values["I_TCPY"] = 24.0 * place
        self.folders_changed = self.folders_changed and minor

    def SelectProjectInstance(self, project):
        """API text: "do not switch project tabs from your code while in an Undo block"."""
        if any(project.undo_depth for project in self.projects):
            raise Misuse("SelectProjectInstance: inside an undo step")
        self.projects.remove(project)
        self.projects.insert(0, project)

    def GetMediaTrackInfo_Value(self, track, name):
        if name == "IP_TRACKNUMBER":
            return float(self._project_of(track).tracks.index(track) + 1)
        return track.values.get(name, 0.0)

    def SetMediaTrackInfo_Value(self, track, name, value):
        return self._set_value("SetMediaTrackInfo_Value", track, name, value)

    def GetSetMediaTrackInfo_String(self, track, name, value, is_set):
        return self._string("GetSetMediaTrackInfo_String", track, name, value, is_set)

    def _set_value(self, function: str, handle: Handle, name: str, value: float) -> bool:
        if name in READ_ONLY:
            raise Misuse(f"{function}: {name} can only be read")
        self._changing(function, handle)
        self.folders_changed = self.folders_changed or name == "I_FOLDERDEPTH"
        handle.values[name] = float(value)
        return True

    def _string(self, function: str, handle: Handle, name: str, value: str, is_set: bool) -> tuple[bool, str]:
        if is_set:
            self._changing(function, handle)
            handle.strings[name] = value
        return name in handle.strings, handle.strings.get(name, "")

    # Items and takes

    def CountMediaItems(self, project):
        return len(project.items)

    def GetMediaItem(self, project, index):
        return project.items[index] if index < len(project.items) else None

    def CountSelectedMediaItems(self, project):
        return sum(item.values["B_UISEL"] > 0 for item in project.items)

    def GetSelectedMediaItem(self, project, index):
        selected = [item for item in project.items if item.values["B_UISEL"]]
        return selected[index] if index < len(selected) else None

    def SelectAllMediaItems(self, project, selected):
        for item in project.items:
            item.values["B_UISEL"] = float(selected)

    def SetMediaItemSelected(self, item, selected):
        item.values["B_UISEL"] = float(selected)

    def GetParentTrack(self, track):
        level, parents = 0, {}
        for other in self._project_of(track).tracks:
            parents[level] = other
            if other is track:
                return parents.get(level - 1)
            level += int(other.values["I_FOLDERDEPTH"])
        return None

    def CountTrackMediaItems(self, track):
        return len(track.items)

    def GetTrackMediaItem(self, track, index):
        return track.items[index] if index < len(track.items) else None

    def GetMediaItemTrack(self, item):
        return item.track

    def AddMediaItemToTrack(self, track):
        self._changing("AddMediaItemToTrack", track)
        item = Item(track)
        track.items.append(item)
        return item

    def SplitMediaItem(self, item, position):
        """The left piece keeps its GUID. Both ends of the cut get fades, as REAPER may be set to make them."""
        self._changing("SplitMediaItem", item)
        start, length = item.values["D_POSITION"], item.values["D_LENGTH"]
        if not start < position < start + length:
            return None
        right = Item(item.track)
        right.values, right.active = dict(item.values), item.active
        right.strings |= {name: value for name, value in item.strings.items() if name != "GUID"}
        for take in item.takes:
            other = Take(right, take.source and take.source.copy())
            other.values = dict(take.values)
            other.values["D_STARTOFFS"] += (position - start) * take.values["D_PLAYRATE"]
            other.strings |= {name: value for name, value in take.strings.items() if name != "GUID"}
            other.stretch_markers, other.effects = take.stretch_markers, take.effects
            other.effect_level = take.effect_level
            shift = (position - start) * take.values["D_PLAYRATE"]
            other.envelopes = {
                name: [(at - shift, value) for at, value in points] for name, points in take.envelopes.items()
            }
            right.takes.append(other)
        right.values |= {"D_POSITION": position, "D_LENGTH": start + length - position, "D_FADEINLEN": 0.01}
        item.values |= {"D_LENGTH": position - start, "D_FADEOUTLEN": 0.01}
        item.track.items.insert(item.track.items.index(item) + 1, right)
        return right

    def DeleteTrackMediaItem(self, track, item):
        self._changing("DeleteTrackMediaItem", track)
        track.items.remove(item)
        kill(item)
        return True

    def GetMediaItemInfo_Value(self, item, name):
        return item.values.get(name, 0.0)

    def SetMediaItemInfo_Value(self, item, name, value):
        return self._set_value("SetMediaItemInfo_Value", item, name, value)

    def GetSetMediaItemInfo_String(self, item, name, value, is_set):
        return self._string("GetSetMediaItemInfo_String", item, name, value, is_set)

    def AddTakeToMediaItem(self, item):
        self._changing("AddTakeToMediaItem", item)
        item.takes.append(Take(item))
        return item.takes[-1]

    def GetActiveTake(self, item):
        return item.take

    def CountTakes(self, item):
        return len(item.takes)

    def GetTake(self, item, index):
        return item.takes[index] if index < len(item.takes) else None

    def GetTakeName(self, take):
        return take.strings["P_NAME"]

    def GetMediaItemTake_Item(self, take):
        return take.item

    def GetMediaItemTakeByGUID(self, project, guid):
        takes = (take for item in project.items for take in item.takes)
        return next((take for take in takes if take.guid == guid), None)

    def GetMediaItemTakeInfo_Value(self, take, name):
        if name == "IP_TAKENUMBER":
            return float(take.item.takes.index(take))
        return take.values.get(name, 0.0)

    def SetMediaItemTakeInfo_Value(self, take, name, value):
        return self._set_value("SetMediaItemTakeInfo_Value", take, name, value)

    def GetSetMediaItemTakeInfo_String(self, take, name, value, is_set):
        return self._string("GetSetMediaItemTakeInfo_String", take, name, value, is_set)

    def GetMediaItemTake_Source(self, take):
        return take.source

    def SetMediaItemTake_Source(self, take, source: Source):
        self._changing("SetMediaItemTake_Source", take)
        """API text: the old source is not destroyed, the caller has to."""
        if source.owned:
            raise Misuse("SetMediaItemTake_Source: the source belongs to another take")
        if take.source is not None:
            take.source.owned = False
            self.left_over.append(take.source)
        source.owned, take.source = True, source
        return True

    def SetActiveTake(self, take):
        self._changing("SetActiveTake", take)
        take.item.active = take.item.takes.index(take)

    def GetItemStateChunk(self, item, text, is_undo):
        self.spend(0.0002)
        return True, chunks.write(item)

    def SetItemStateChunk(self, item, text, is_undo):
        """Takes are made anew: their handles die."""
        self._changing("SetItemStateChunk", item)
        self.spend(0.0003)
        chunks.read(item, text)
        return True

    def TakeIsMIDI(self, take):
        return take.source is not None and take.source.type == "MIDI"

    def GetTakeNumStretchMarkers(self, take):
        return take.stretch_markers

    def CountTakeEnvelopes(self, take):
        return len(take.envelopes)

    def ColorToNative(self, red, green, blue):
        return blue << 16 | green << 8 | red  # as on Windows: not the order of "#rrggbb"

    def ValidatePtr2(self, project, pointer: Any, kind):
        if not kind.endswith("*"):
            raise Misuse(f"ValidatePtr2: {kind!r} is no pointer's type")
        if getattr(pointer, "kind", None) != kind[:-1] or not pointer.alive:
            return False
        if isinstance(pointer, Project):
            return pointer in self.projects
        return isinstance(pointer, Source) or any(
            pointer in (*project.tracks, *project.items) or pointer in item.takes
            for item in (project.items or [Item(Track())])
        )
