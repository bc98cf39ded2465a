-- Puts stems into a project. Only this file, those that it calls, and `reseparate` change tracks and items, always in
-- one undo step.
local require = ...
local envelopes, layout, project = require("envelopes"), require("layout"), require("project")
local silencing = require("silencing")

local insert = {}

insert.JOB = "P_EXT:tsbs_daw_job" -- of an item: the job that its media comes from

-- Add a job to those that a track knows, in the place of one that it replaces.
function insert.remember_job(track, id, replaced)
  local known = {}
  for other in project.note(track, "jobs"):gmatch("%S+") do
    known[#known + 1] = other ~= replaced and other or nil
  end
  known[#known + 1] = id
  project.note(track, "jobs", table.concat(known, " "))
end

-- What a folder knows of a job that it has the stems of.
local function remember(folder, ticket)
  insert.remember_job(folder, ticket.id)
  project.note(folder, "origin_" .. ticket.id, ticket.origin)
end

local ITEM_VALUES = {
  "D_VOL",
  "D_FADEINDIR",
  "D_FADEOUTDIR",
  "C_FADEINSHAPE",
  "C_FADEOUTSHAPE",
  "C_BEATATTACHMODE",
  "C_AUTOSTRETCH",
}
local TAKE_VALUES = { "D_VOL", "D_PAN", "D_PANLAW" }
local FADES_IN, FADES_OUT = { "D_FADEINLEN", "D_FADEINLEN_AUTO" }, { "D_FADEOUTLEN", "D_FADEOUTLEN_AUTO" }

local function item_values(item, names, values)
  for _, name in ipairs(names) do
    values[name] = reaper.GetMediaItemInfo_Value(item, name)
  end
end

-- What the source's item has beside its audio, for the part of it that is covered: values of an item by their names.
local function item_properties(place)
  local from, found = place.item, {}
  item_values(from, ITEM_VALUES, found)
  local position = reaper.GetMediaItemInfo_Value(from, "D_POSITION")
  local length = reaper.GetMediaItemInfo_Value(from, "D_LENGTH")
  if math.abs(place.position - position) < 1e-6 then
    item_values(from, FADES_IN, found)
  end
  if math.abs(place.position + place.length - position - length) < 1e-6 then
    item_values(from, FADES_OUT, found)
  end
  local snap = reaper.GetMediaItemInfo_Value(from, "D_SNAPOFFSET") - (place.position - position)
  found.D_SNAPOFFSET = snap >= 0 and snap <= place.length and snap or nil
  return found
end

-- What the source's take has beside its audio: values by their names, and envelopes. A stem's item begins later than
-- the source's by `shift_s`: so much earlier are its envelopes' points.
function insert.take_properties(take, shift_s)
  local found = { values = {}, envelopes = envelopes.of(take, shift_s) }
  for _, name in ipairs(TAKE_VALUES) do
    found.values[name] = reaper.GetMediaItemTakeInfo_Value(take, name)
  end
  return found
end

-- Both, read once for all stems.
local function source_properties(ticket, place)
  if not place.item or ticket.baked then
    return {}
  end
  local shift_s = place.position - reaper.GetMediaItemInfo_Value(place.item, "D_POSITION")
  return { item = item_properties(place), take = place.take and insert.take_properties(place.take, shift_s) }
end

local function set_media(take, stem, offset, media, ticket)
  reaper.SetMediaItemTake_Source(take, media)
  reaper.GetSetMediaItemTakeInfo_String(take, "P_NAME", ticket.name .. " - " .. stem.name, true)
  reaper.SetMediaItemTakeInfo_Value(take, "D_STARTOFFS", offset)
end

-- Handles of the item's takes are not valid afterwards.
function insert.set_take_properties(take, properties)
  for name, value in pairs(properties.values) do
    reaper.SetMediaItemTakeInfo_Value(take, name, value)
  end
  envelopes.add(take, properties.envelopes)
end

-- properties: from `source_properties`, or nil
function insert.add_item(track, stem, place, media, ticket, properties)
  properties = properties or source_properties(ticket, place)
  local item = reaper.AddMediaItemToTrack(track)
  local take = reaper.AddTakeToMediaItem(item)
  set_media(take, stem, place.offset, media, ticket)
  reaper.SetMediaItemInfo_Value(item, "D_POSITION", place.position)
  reaper.SetMediaItemInfo_Value(item, "D_LENGTH", place.length)
  reaper.SetMediaItemInfo_Value(item, "B_LOOPSRC", 0)
  reaper.GetSetMediaItemInfo_String(item, insert.JOB, ticket.id, true)
  if ticket.partial and (ticket.source == "mute" or not place.item) then
    -- The source goes on right before and after; and what was read of a track has its fades in it.
    silencing.no_fade(item, 1)
    silencing.no_fade(item, 2)
  end
  layout.widen(track, reaper.GetMediaSourceNumChannels(media))
  for name, value in pairs(properties.item or {}) do
    reaper.SetMediaItemInfo_Value(item, name, value)
  end
  if properties.take then
    insert.set_take_properties(take, properties.take)
  end
end

-- A stem as a further take of an item, without properties. Returns its number among the item's takes.
function insert.add_take(item, stem, offset, media, ticket)
  set_media(reaper.AddTakeToMediaItem(item), stem, offset, media, ticket)
  return reaper.CountTakes(item) - 1
end

-- Stems as takes of the source's item, or of the piece of it that was read. Its own take stays, and is heard unless the
-- source is to be muted.
local function add_takes(ticket, stems, place, media)
  place = ticket.partial and silencing.piece(ticket, place) or place
  local item = place.item
  local own, numbers = reaper.GetActiveTake(item), {}
  local properties = not ticket.baked and insert.take_properties(place.take, 0) or nil
  project.add_to_folder(place.track, ticket.group)
  remember(place.track, ticket)
  for index, stem in ipairs(stems) do
    numbers[index] = insert.add_take(item, stem, place.offset, media[index], ticket)
  end
  reaper.GetSetMediaItemInfo_String(item, insert.JOB, ticket.id, true)
  reaper.SetActiveTake(ticket.source == "mute" and reaper.GetTake(item, numbers[1]) or own)
  for _, number in ipairs(properties and numbers or {}) do
    insert.set_take_properties(reaper.GetTake(item, number), properties)
  end
  return {}
end

local function add_all(proj, ticket, stems, place, media, known)
  if ticket.layout == "takes" then
    return add_takes(ticket, stems, place, media)
  end
  local folder, children = layout.tracks(proj, ticket, stems, place.track, known)
  local properties = source_properties(ticket, place)
  remember(folder, ticket)
  for index, stem in ipairs(stems) do
    insert.add_item(children[stem.name], stem, place, media[index], ticket, properties)
    insert.remember_job(children[stem.name], ticket.id)
  end
  if ticket.source ~= "mute" or not place.track then
    return {}
  elseif ticket.partial then
    return silencing.part(ticket, place, known.pieces)
  elseif place.item then
    reaper.SetMediaItemInfo_Value(place.item, "B_MUTE", 1)
  end
  return {}
end

-- Whether a part of what lies on the source's track is muted: then it has to be known which items that are.
function insert.needs_pieces(ticket, place)
  return ticket.partial and ticket.source == "mute" and place.track and ticket.layout ~= "takes"
end

-- One undo step around `body`, in the tick it is called in, balanced whatever happens. true and what `body` returns, or
-- nil and a sentence. REAPER 6 inserts tracks into the project in front alone, which may not change inside a step.
function insert.undoable(proj, label, body)
  local in_front = not reaper.APIExists("InsertTrackInProject") and reaper.EnumProjects(-1, "")
  if in_front then
    reaper.SelectProjectInstance(proj)
  end
  reaper.Undo_BeginBlock2(proj)
  reaper.PreventUIRefresh(1)
  local ok, found = pcall(body)
  reaper.PreventUIRefresh(-1)
  reaper.Undo_EndBlock2(proj, label, -1)
  if in_front then
    reaper.SelectProjectInstance(in_front)
  end
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
-- Args: place: { track, item, take, position, length, offset }; track, item and its take may be missing
--       media: PCM sources, one for each stem; known: from `project.survey`, with its `pieces` where they are needed
function insert.stems(proj, ticket, stems, place, media, known)
  return insert.undoable(proj, ("tsbs-daw: stems of %s"):format(ticket.name), function()
    return add_all(proj, ticket, stems, place, media, known)
  end)
end

return insert
