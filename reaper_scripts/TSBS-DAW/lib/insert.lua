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

local function set_media(take, stem, place, media, ticket)
  reaper.SetMediaItemTake_Source(take, media)
  reaper.GetSetMediaItemTakeInfo_String(take, "P_NAME", ticket.name .. " - " .. stem.name, true)
  reaper.SetMediaItemTakeInfo_Value(take, "D_STARTOFFS", place.offset)
end

-- By how much later than the source's item a stem's begins: so much earlier are its envelopes' points.
local function envelope_shift(place)
  return place.position - reaper.GetMediaItemInfo_Value(place.item, "D_POSITION")
end

-- What the source's take has beside its audio.
local function dress_take(take, place, shift_s)
  for _, name in ipairs(TAKE_VALUES) do
    reaper.SetMediaItemTakeInfo_Value(take, name, reaper.GetMediaItemTakeInfo_Value(place.take, name))
  end
  envelopes.add(take, envelopes.of(place.take, shift_s))
end

function insert.add_item(track, stem, place, media, ticket)
  local item = reaper.AddMediaItemToTrack(track)
  local take = reaper.AddTakeToMediaItem(item)
  set_media(take, stem, place, media, ticket)
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
  if place.item and not ticket.baked then
    dress(item, place)
    if place.take then
      dress_take(take, place, envelope_shift(place)) -- last: `take` is not valid afterwards
    end
  end
end

-- Stems as takes of the source's item, or of the piece of it that was read. Its own take stays, and is heard unless the
-- source is to be muted.
local function add_takes(proj, ticket, stems, place, media)
  if ticket.partial then
    local piece, said = silencing.piece(ticket, place)
    if not piece then
      return said
    end
    place = piece
  end
  local item = place.item
  local own, numbers = reaper.GetActiveTake(item), {}
  project.add_to_folder(place.track, ticket.group)
  remember(place.track, ticket)
  for index, stem in ipairs(stems) do
    local take = reaper.AddTakeToMediaItem(item)
    set_media(take, stem, place, media[index], ticket)
    numbers[index] = reaper.CountTakes(item) - 1
  end
  reaper.GetSetMediaItemInfo_String(item, insert.JOB, ticket.id, true)
  reaper.SetActiveTake(ticket.source == "mute" and reaper.GetTake(item, numbers[1]) or own)
  local source = place.take and project.take_guid(place.take)
  for _, number in ipairs(not ticket.baked and source and numbers or {}) do
    place.take = reaper.GetMediaItemTakeByGUID(proj, source)
    dress_take(reaper.GetTake(item, number), place, 0)
  end
  return {}
end

local function add_all(proj, ticket, stems, place, media, known)
  if ticket.layout == "takes" and place.item then
    return add_takes(proj, ticket, stems, place, media)
  end
  local folder, children = layout.tracks(proj, ticket, stems, place.track, known)
  remember(folder, ticket)
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
-- nil and a sentence. REAPER 6 inserts tracks into the project in front alone, which may not change inside a step.
function insert.undoable(proj, label, body)
  local in_front = not reaper.APIExists("InsertTrackInProject") and reaper.EnumProjects(-1)
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
--       media: PCM sources, one for each stem; known: the tracks, from `project.survey`
function insert.stems(proj, ticket, stems, place, media, known)
  return insert.undoable(proj, ("tsbs-daw: stems of %s"):format(ticket.name), function()
    return add_all(proj, ticket, stems, place, media, known)
  end)
end

return insert
