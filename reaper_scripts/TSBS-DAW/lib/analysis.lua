-- Puts what the analysis of an item found into its project: tempo map, markers at bars or beats, regions of sections,
-- and a note on the item with tempo and key. All of it in one undo step.
local require = ...
local clock, files, insert = require("clock"), require("files"), require("insert")
local json, place = require("json"), require("place")
local project, settings, text, ui = require("project"), require("settings"), require("text"), require("ui")

local analysis = {}

local NOTE = "P_EXT:tsbs_daw_analysis" -- of an item: the job whose analysis is in the project
local MOST_MARKERS = 800 -- in one step, which must be short
local NEAR_S = 0.001
local STARTS_BAR, MAY_CUT = 1, 4 -- of a tempo marker's flags: the bar before it may be a short one

local MARKERS = {
  { "none", "None" },
  { "bars", "At every bar" },
  { "beats", "At every beat" },
}
local TEMPO_NOTE = "A tempo map moves items whose time base is beats; the analysed item keeps its place."

-- What the user chose: tempo, sections and note (booleans), markers (none, bars, beats).
function analysis.chosen()
  return {
    tempo = settings.choice("analysis_tempo") == "yes",
    sections = settings.choice("analysis_sections") ~= "no",
    note = settings.choice("analysis_note") ~= "no",
    markers = settings.choice("analysis_markers") or "bars",
  }
end

local function remember(chosen)
  for _, name in ipairs({ "tempo", "sections", "note" }) do
    settings.choose("analysis_" .. name, chosen[name] and "yes" or "no")
  end
  settings.choose("analysis_markers", chosen.markers)
end

-- Ask what is wanted, then call `go(chosen)` unless the user closed the window.
function analysis.ask(go)
  local chosen, decided = analysis.chosen(), false
  ui.open("tsbs-daw: insert analysis", 520, 240, function(window)
    chosen.markers = window:choose("Markers", MARKERS, chosen.markers)
    chosen.sections = window:check("Sections as regions", chosen.sections)
    chosen.note = window:check("Tempo and key as a note on the item", chosen.note)
    chosen.tempo = window:check("Tempo map", chosen.tempo)
    window:text(TEMPO_NOTE, true)
    local pressed = window:footer({ "Insert", "Cancel" })
    decided = pressed == "Insert"
    return pressed == nil
  end, function()
    if decided then
      remember(chosen)
      go(chosen)
    end
  end)
end

local function is_list(value)
  return type(value) == "table"
end

-- The analysis that a result names; or nil and a sentence. It is long: some thousand numbers for a song.
local function read(ticket, result, pause)
  local path = result.analysis
  local content = type(path) == "string" and files.read(path)
  local found = content and json.decode(content, pause)
  local whole = is_list(found) and is_list(found.tempo) and is_list(found.beats) and is_list(found.sections)
  if not (whole and is_list(found.tempo.changes) and is_list(found.beats.times_s)) then
    return nil, ("The analysis of %s failed or is damaged; insert it again."):format(text.shown(ticket.name))
  end
  return found
end

-- Where in the project a moment of the analysis is heard, or nil outside of what is left of the item.
local function clock_of(at)
  local zero_s = at.position - at.offset
  return function(moment_s)
    local now_s = zero_s + moment_s
    return now_s >= at.position - NEAR_S and now_s <= at.position + at.length + NEAR_S and now_s or nil
  end
end

-- The last tempo marker up to a moment: its index and its time; nil where there is none.
local function tempo_marker_at(proj, moment_s)
  local index = reaper.FindTempoTimeSigMarker(proj, moment_s)
  if index < 0 then
    return nil
  end
  local _, time_s = reaper.GetTempoTimeSigMarker(proj, index)
  return index, time_s
end

local function has_tempo_markers_in(proj, at)
  local _, time_s = tempo_marker_at(proj, at.position + at.length)
  return time_s ~= nil and time_s >= at.position
end

-- The marker at a time: its index, or nil where REAPER has put it elsewhere.
local function index_at(proj, time_s)
  local index, found_s = tempo_marker_at(proj, time_s + NEAR_S)
  return index and math.abs(found_s - time_s) < NEAR_S and index or nil
end

-- A tempo from here on; with `beats`, a bar of so many begins, and cuts the one before it short. Returns whether the
-- marker is where it was put.
function analysis.add_tempo(proj, time_s, bpm, beats)
  reaper.SetTempoTimeSigMarker(proj, -1, time_s, -1, -1, bpm, 0, 0, false)
  local index = index_at(proj, time_s)
  if index and beats then
    reaper.GetSetTempoTimeSigMarkerFlag(proj, index, STARTS_BAR | MAY_CUT, true)
    reaper.SetTempoTimeSigMarker(proj, index, time_s, -1, -1, bpm, beats, 4, false)
    index = index_at(proj, time_s)
  end
  return index ~= nil
end

local function add_tempo_map(proj, found, at, when, said)
  if not found.tempo.bpm or #found.tempo.changes == 0 then
    said[#said + 1] = "No steady pulse was found, so there is no tempo map."
    return
  elseif has_tempo_markers_in(proj, at) then
    said[#said + 1] =
      "The project has tempo markers there, so they were left as they are; delete them to get a tempo map."
    return
  end
  reaper.SetMediaItemInfo_Value(at.item, "C_BEATATTACHMODE", 0) -- or the item moves with its own tempo map
  local beats = not found.beats.meter_doubtful and found.beats.beats_per_bar or 4
  local well = true
  for index, change in ipairs(found.tempo.changes) do
    local time_s = when(change.at_s)
    if time_s then
      well = analysis.add_tempo(proj, time_s, change.bpm, index == 1 and beats or nil) and well
    end
  end
  if not well then
    said[#said + 1] = "REAPER placed a tempo marker off its beat; check the tempo map, or undo."
  end
  if found.tempo.doubtful then
    said[#said + 1] = "The tempo is doubtful; compare the tempo map with the song."
  end
end

local function add_markers(proj, found, chosen, when, said)
  local kind, times = chosen.markers, found.beats.times_s
  if kind == "beats" and #times > MOST_MARKERS then
    kind = "bars"
    said[#said + 1] = ("There are %d beats, so only the bars got markers."):format(#times)
  end
  if kind == "bars" then
    times = found.beats.downbeats_s or {}
  end
  for number = 1, kind ~= "none" and math.min(#times, MOST_MARKERS) or 0 do
    local time_s = when(times[number])
    if time_s then
      reaper.AddProjectMarker2(proj, false, time_s, 0, tostring(number), -1, 0)
    end
  end
  if kind ~= "none" and #times == 0 then
    said[#said + 1] = ("No %s were found."):format(kind)
  end
end

local function add_sections(proj, found, at, when)
  local last_s = at.position + at.length
  for _, section in ipairs(found.sections) do
    local from_s = when(section.start_s) or when(section.end_s) and at.position
    local to_s = from_s and (when(section.end_s) or last_s)
    if from_s and to_s - from_s > NEAR_S then
      reaper.AddProjectMarker2(proj, true, from_s, to_s, tostring(section.label), -1, 0)
    end
  end
end

local function noted(found)
  local parts = {}
  local function add(format, doubtful, ...)
    parts[#parts + 1] = format:format(...) .. (doubtful and " (doubtful)" or "")
  end
  if found.tempo.bpm then
    add("%.1f BPM", found.tempo.doubtful, found.tempo.bpm)
  end
  if is_list(found.key) then
    add("%s %s, %s", found.key.doubtful, found.key.tonic, found.key.mode, found.key.camelot)
  end
  return table.concat(parts, "; ")
end

local function add_note(item, line)
  local _, before = reaper.GetSetMediaItemInfo_String(item, "P_NOTES", "", false)
  if line ~= "" and not before:find(line, 1, true) then
    reaper.GetSetMediaItemInfo_String(item, "P_NOTES", before == "" and line or before .. "\n" .. line, true)
  end
end

-- Put a finished job's analysis into the project. A step function, as that of `delivery`.
function analysis.of(proj, ticket, result)
  local find, item, found, is_ready = project.item_finder(proj, ticket.item, ticket.take), false, nil, false
  local reading = clock.sliced(function(pause)
    return read(ticket, result, pause)
  end)
  return function(over)
    if not found then
      local wrong
      found, wrong = reading(over)
      if not found then
        return found, wrong
      end
    end
    if not project.is_open(proj) then
      return nil
    end
    item = find()
    if item == nil then
      return nil, ("%s is gone from its project, so its analysis cannot be inserted."):format(text.shown(ticket.name))
    elseif not item then
      return false
    elseif not is_ready then
      is_ready = true
      return false, clock.ALONE
    end
    local _, known = reaper.GetSetMediaItemInfo_String(item, NOTE, "", false)
    if known == ticket.id then
      return true -- it is there already, from before a crash
    end
    local at, chosen, said = place.of(proj, ticket, item, nil), ticket.analysis, {}
    local when = clock_of(at)
    local ok, err = insert.undoable(proj, ("tsbs-daw: analysis of %s"):format(ticket.name), function()
      reaper.GetSetMediaItemInfo_String(item, NOTE, ticket.id, true)
      if chosen.tempo then
        add_tempo_map(proj, found, at, when, said)
      end
      add_markers(proj, found, chosen, when, said)
      if chosen.sections then
        add_sections(proj, found, at, when)
      end
      if chosen.note then
        add_note(item, noted(found))
      end
    end)
    if ok then
      reaper.UpdateTimeline()
    end
    return ok, ok and said or err
  end
end

return analysis
