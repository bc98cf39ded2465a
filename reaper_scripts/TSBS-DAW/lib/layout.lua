-- The tracks that stems lie on. They are made so that the mix stays as it was:
--
--   children  stems below the source's track, which becomes their folder: its fader, pan, width, polarity, effects,
--             sends and automation apply to their sum as they did to the source
--   folder    a folder of their own, with copies of all these but the automation
--
-- With `takes` there are no new tracks. A track's playback offset moves its own media alone, so every stem gets it.
local require = ...
local project, protocol = require("project"), require("protocol")

local layout = {}

local UNITY = 1 -- of D_PANLAW: 0 dB, where -1 is the project's pan law, which would attenuate the centre twice
local MIXED = {
  "D_VOL",
  "D_PAN",
  "D_WIDTH",
  "D_DUALPANL",
  "D_DUALPANR",
  "I_PANMODE",
  "D_PANLAW",
  "I_PANLAW_FLAGS",
  "B_PHASE",
  "B_MAINSEND",
  "C_MAINSEND_OFFS",
  "C_MAINSEND_NCH",
  "I_FXEN",
  "I_SOLO",
}
local PLAYED = { "D_PLAY_OFFSET", "I_PLAY_OFFSET_FLAG", "C_BEATATTACHMODE" }
local SENT = { "B_MUTE", "B_PHASE", "B_MONO", "D_VOL", "D_PAN", "D_PANLAW", "I_SENDMODE", "I_SRCCHAN", "I_DSTCHAN" }
local SENDS, OUTPUTS = 0, 1 -- categories of sends: to other tracks, and to the hardware
local FOLDER_COLOR = "#9e9e9e"

function layout.number(track, name, value)
  reaper.SetMediaTrackInfo_Value(track, name, value)
end

local function value(track, name)
  return reaper.GetMediaTrackInfo_Value(track, name)
end

local function copy(from, to, names)
  for _, name in ipairs(names) do
    layout.number(to, name, value(from, name))
  end
end

local function native_color(code)
  local red, green, blue = protocol.color(code)
  return reaper.ColorToNative(red, green, blue) | 0x1000000
end

-- REAPER 6 inserts into the project in front alone, which `insert.undoable` has seen to.
local function new_track(proj, index, name, color, depth)
  if reaper.APIExists("InsertTrackInProject") then
    reaper.InsertTrackInProject(proj, index, 0)
  else
    reaper.InsertTrackAtIndex(index, false)
  end
  local track = reaper.GetTrack(proj, index)
  reaper.GetSetMediaTrackInfo_String(track, "P_NAME", name, true)
  layout.number(track, "I_CUSTOMCOLOR", native_color(color))
  layout.number(track, "I_FOLDERDEPTH", depth)
  layout.number(track, "D_VOL", 1)
  layout.number(track, "D_PAN", 0)
  return track
end

-- Where a track stands, and so the index of the one below it.
function layout.below(track)
  return math.floor(value(track, "IP_TRACKNUMBER"))
end

-- A track for a stem. source: the source's track, or nil
function layout.add_stem_track(proj, index, ticket, stem, depth, source)
  local track = new_track(proj, index, stem.name, stem.color, depth)
  local hidden = stem.muted or ticket.layout == "children" and ticket.source == "keep"
  layout.number(track, "B_MUTE", hidden and 1 or 0)
  layout.number(track, "D_PANLAW", UNITY)
  if source then
    copy(source, track, PLAYED)
  end
  project.note(track, "group", ticket.group)
  project.note(track, "stem", stem.name)
  return track
end

-- Let a track, and those that it goes to, carry as many channels as its media has.
function layout.widen(track, channels)
  local needed = channels + channels % 2
  while track and needed > 2 do
    if value(track, "I_NCHAN") < needed then
      layout.number(track, "I_NCHAN", needed)
    end
    track = reaper.GetParentTrack(track)
  end
end

-- Depths that put `count` tracks below one of depth `depth`: of that one, and of the last of them.
local function depths_below(depth)
  if depth > 0 then
    return depth, 0 -- it is a folder already, and they become its first children
  end
  return 1, depth - 1
end

local function below_source(proj, ticket, stems, source)
  local index = layout.below(source)
  local depth, last = depths_below(value(source, "I_FOLDERDEPTH"))
  layout.number(source, "I_FOLDERDEPTH", depth)
  local children = {}
  for position, stem in ipairs(stems) do
    local own = position == #stems and last or 0
    children[stem.name] = layout.add_stem_track(proj, index + position - 1, ticket, stem, own, source)
  end
  return source, children
end

-- category: SENDS, or OUTPUTS, which have no track that they go to
local function copy_sends(from, to, category)
  for index = 0, reaper.GetTrackNumSends(from, category) - 1 do
    local target = category == SENDS and reaper.GetTrackSendInfo_Value(from, category, index, "P_DESTTRACK") or nil
    local send = reaper.CreateTrackSend(to, target)
    for _, name in ipairs(SENT) do
      local known = reaper.GetTrackSendInfo_Value(from, category, index, name)
      reaper.SetTrackSendInfo_Value(to, category, send, name, known)
    end
  end
end

local function sound_like(folder, source)
  copy(source, folder, MIXED)
  for index = 0, reaper.TrackFX_GetCount(source) - 1 do
    reaper.TrackFX_CopyToTrack(source, index, folder, index, false)
  end
  copy_sends(source, folder, SENDS)
  copy_sends(source, folder, OUTPUTS)
end

-- A folder right below the source's track, or at the end without one. Where the source closes folders, the last stem
-- closes them, after its own.
local function own_folder(proj, ticket, stems, source)
  local index, closing = reaper.CountTracks(proj), 0
  if source then
    index = layout.below(source)
    closing = math.min(0, value(source, "I_FOLDERDEPTH"))
    if closing < 0 then
      layout.number(source, "I_FOLDERDEPTH", 0)
    end
  end
  local folder = new_track(proj, index, ticket.name .. " - stems", FOLDER_COLOR, 1)
  local hidden = ticket.source == "keep" or source and value(source, "B_MUTE") ~= 0
  layout.number(folder, "B_MUTE", hidden and 1 or 0)
  if source then
    sound_like(folder, source)
  end
  local children = {}
  for position, stem in ipairs(stems) do
    local depth = position == #stems and -1 + closing or 0
    children[stem.name] = layout.add_stem_track(proj, index + position, ticket, stem, depth, source)
  end
  return folder, children
end

-- Tracks for all stems: those of the folder that is there, and new ones right below it for what it lacks.
--
-- Args: source: the source's track, or nil; known: from `project.survey`
-- Returns: the folder, and the track of each stem by its name
function layout.tracks(proj, ticket, stems, source, known)
  local folder, children = known.folder, {}
  if folder and value(folder, "I_FOLDERDEPTH") > 0 then
    for _, stem in ipairs(stems) do
      local there = known.stems[stem.name]
      children[stem.name] = there and there[1]
        or layout.add_stem_track(proj, layout.below(folder), ticket, stem, 0, source)
    end
  elseif ticket.layout == "children" and source then
    folder, children = below_source(proj, ticket, stems, source)
  else
    folder, children = own_folder(proj, ticket, stems, source)
  end
  project.add_to_folder(folder, ticket.group)
  reaper.TrackList_AdjustWindows(false)
  return folder, children
end

return layout
