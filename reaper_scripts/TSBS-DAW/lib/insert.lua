-- Puts stems into a project. Only this file, `silencing` and `reseparate` change tracks and items, always in one undo
-- step.
local require = ...
local project, protocol, silencing = require("project"), require("protocol"), require("silencing")

local insert = {}

insert.JOB = "P_EXT:tsbs_daw_job" -- of an item: the job that its media comes from

function insert.number(track, name, value)
  reaper.SetMediaTrackInfo_Value(track, name, value)
end

local function native_color(code)
  local red, green, blue = protocol.color(code)
  return reaper.ColorToNative(red, green, blue) | 0x1000000
end

local function insert_track(proj, index)
  if reaper.APIExists("InsertTrackInProject") then
    reaper.InsertTrackInProject(proj, index, 0)
    return
  end
  -- REAPER 6 inserts into the project in front alone.
  local in_front = reaper.EnumProjects(-1)
  reaper.SelectProjectInstance(proj)
  reaper.InsertTrackAtIndex(index, false)
  reaper.SelectProjectInstance(in_front)
end

local function new_track(proj, index, name, color, depth)
  insert_track(proj, index)
  local track = reaper.GetTrack(proj, index)
  reaper.GetSetMediaTrackInfo_String(track, "P_NAME", name, true)
  insert.number(track, "I_CUSTOMCOLOR", native_color(color))
  insert.number(track, "I_FOLDERDEPTH", depth)
  return track
end

-- Where a track stands, and so the index of the one below it.
function insert.below(track)
  return math.floor(reaper.GetMediaTrackInfo_Value(track, "IP_TRACKNUMBER"))
end

function insert.add_stem_track(proj, index, ticket, stem, depth)
  local track = new_track(proj, index, stem.name, stem.color, depth)
  insert.number(track, "B_MUTE", stem.muted and 1 or 0)
  project.note(track, "group", ticket.group)
  project.note(track, "stem", stem.name)
  return track
end

-- A folder right below `source`, or at the end without one. Where the source closes folders, the last stem closes
-- them, after its own.
local function new_folder(proj, ticket, stems, source)
  local index = reaper.CountTracks(proj)
  local closing = 0
  if source then
    index = insert.below(source)
    closing = math.min(0, reaper.GetMediaTrackInfo_Value(source, "I_FOLDERDEPTH"))
    if closing < 0 then
      insert.number(source, "I_FOLDERDEPTH", 0)
    end
  end
  local folder = new_track(proj, index, ticket.name .. " - stems", "#9e9e9e", 1)
  project.note(folder, "group", ticket.group)
  insert.number(folder, "B_MUTE", ticket.source == "keep" and 1 or 0)
  local children = {}
  for position, stem in ipairs(stems) do
    local depth = position == #stems and -1 + closing or 0
    children[stem.name] = insert.add_stem_track(proj, index + position, ticket, stem, depth)
  end
  return index, children
end

-- Tracks for all stems: those of the folder that is there, and new ones right below it for what it lacks.
local function stem_tracks(proj, ticket, stems, source, known)
  local children = {}
  if not known.folder then
    local at
    at, children = new_folder(proj, ticket, stems, source)
    return reaper.GetTrack(proj, at), children
  end
  for _, stem in ipairs(stems) do
    local there = known.stems[stem.name]
    children[stem.name] = there and there[1] or insert.add_stem_track(proj, insert.below(known.folder), ticket, stem, 0)
  end
  return known.folder, children
end

-- Add a job to those that a track knows, in the place of one that it replaces.
function insert.remember_job(track, id, replaced)
  local known = {}
  for other in project.note(track, "jobs"):gmatch("%S+") do
    known[#known + 1] = other ~= replaced and other or nil
  end
  known[#known + 1] = id
  project.note(track, "jobs", table.concat(known, " "))
end

local ITEM_VALUES = { "D_VOL", "D_FADEINDIR", "D_FADEOUTDIR", "C_FADEINSHAPE", "C_FADEOUTSHAPE" }
local FADES_IN, FADES_OUT = { "D_FADEINLEN", "D_FADEINLEN_AUTO" }, { "D_FADEOUTLEN", "D_FADEOUTLEN_AUTO" }

local function copy_values(from, to, names)
  for _, name in ipairs(names) do
    reaper.SetMediaItemInfo_Value(to, name, reaper.GetMediaItemInfo_Value(from, name))
  end
end

-- What the source's item has beside its audio, for the part of it that is covered.
local function dress(item, place)
  local from = place.item
  copy_values(from, item, ITEM_VALUES)
  local position = reaper.GetMediaItemInfo_Value(from, "D_POSITION")
  local length = reaper.GetMediaItemInfo_Value(from, "D_LENGTH")
  if math.abs(place.position - position) < 1e-6 then
    copy_values(from, item, FADES_IN)
  end
  if math.abs(place.position + place.length - position - length) < 1e-6 then
    copy_values(from, item, FADES_OUT)
  end
  local snap = reaper.GetMediaItemInfo_Value(from, "D_SNAPOFFSET") - (place.position - position)
  if snap >= 0 and snap <= place.length then
    reaper.SetMediaItemInfo_Value(item, "D_SNAPOFFSET", snap)
  end
end

function insert.add_item(track, stem, place, media, ticket)
  local item = reaper.AddMediaItemToTrack(track)
  local take = reaper.AddTakeToMediaItem(item)
  reaper.SetMediaItemTake_Source(take, media)
  reaper.GetSetMediaItemTakeInfo_String(take, "P_NAME", ticket.name .. " - " .. stem.name, true)
  reaper.SetMediaItemTakeInfo_Value(take, "D_STARTOFFS", place.offset)
  reaper.SetMediaItemInfo_Value(item, "D_POSITION", place.position)
  reaper.SetMediaItemInfo_Value(item, "D_LENGTH", place.length)
  reaper.SetMediaItemInfo_Value(item, "B_LOOPSRC", 0)
  reaper.GetSetMediaItemInfo_String(item, insert.JOB, ticket.id, true)
  if ticket.partial and (ticket.source == "mute" or not place.item) then
    -- The source goes on right before and after; and what was read of a track has its fades in it.
    silencing.no_fade(item, 1)
    silencing.no_fade(item, 2)
  end
  if place.item and not ticket.baked then
    dress(item, place)
    for _, name in ipairs({ "D_VOL", "D_PAN", "D_PANLAW" }) do
      local from = reaper.GetActiveTake(place.item)
      reaper.SetMediaItemTakeInfo_Value(take, name, reaper.GetMediaItemTakeInfo_Value(from, name))
    end
  end
end

local function add_all(proj, ticket, stems, place, media, known)
  local folder, children = stem_tracks(proj, ticket, stems, place.track, known)
  insert.remember_job(folder, ticket.id)
  project.note(folder, "origin_" .. ticket.id, ticket.origin)
  for index, stem in ipairs(stems) do
    insert.add_item(children[stem.name], stem, place, media[index], ticket)
    insert.remember_job(children[stem.name], ticket.id)
  end
  if ticket.source ~= "mute" or not place.track then
    return {}
  elseif ticket.partial then
    return silencing.part(ticket, place)
  elseif place.item then
    reaper.SetMediaItemInfo_Value(place.item, "B_MUTE", 1)
  end
  return {}
end

-- One undo step around `body`, in the tick it is called in, balanced whatever happens. true and what `body` returns, or
-- nil and a sentence.
function insert.undoable(proj, label, body)
  reaper.Undo_BeginBlock2(proj)
  reaper.PreventUIRefresh(1)
  local ok, found = pcall(body)
  reaper.PreventUIRefresh(-1)
  reaper.Undo_EndBlock2(proj, label, -1)
  reaper.UpdateArrange()
  if not ok then
    if reaper.Undo_CanUndo2(proj) == label then
      reaper.Undo_DoUndo2(proj)
    end
    return nil, ("The stems could not be put into the project (%s)."):format(tostring(found))
  end
  return true, found
end

-- Returns true and sentences about what was left alone, or nil and a sentence.
-- Args: place: { track, item, position, length, offset }; track and item may be missing
--       media: PCM sources, one for each stem; known: the tracks, from `project.survey`
function insert.stems(proj, ticket, stems, place, media, known)
  return insert.undoable(proj, ("tsbs-daw: stems of %s"):format(ticket.name), function()
    return add_all(proj, ticket, stems, place, media, known)
  end)
end

return insert
