-- Puts new stems in the place of those of an earlier job: for "re-separate in place".
local require = ...
local files, insert, layout = require("files"), require("insert"), require("layout")
local project, sources, text = require("project"), require("source"), require("text")

local reseparate = {}

local function job_of(item)
  local _, id = reaper.GetSetMediaItemInfo_String(item, insert.JOB, "", false)
  return id
end

local SECTION = "%s plays a section of its stem, or plays it reversed, so its audio was kept; glue it, or undo that."

-- Whether a take plays a file, as it is or through a section; and whether through one.
local function plays_file(take, path)
  local media = take and reaper.GetMediaItemTake_Source(take)
  if not media then
    return false, false
  end
  local root = sources.root_of(media)
  return files.plain(reaper.GetMediaSourceFileName(root, "")) == path, root ~= media
end

local function source_of(path)
  return (assert(reaper.PCM_Source_CreateFromFile(path), "a stem is damaged"))
end

-- The old source is not a take's any more, and REAPER leaves it to whoever replaced it.
local function replace_media(take, path)
  local old = reaper.GetMediaItemTake_Source(take)
  reaper.SetMediaItemTake_Source(take, source_of(path))
  if old then
    reaper.PCM_Source_Destroy(old)
  end
end

local function is_in(stems, name)
  for _, stem in ipairs(stems) do
    if stem.name == name then
      return true
    end
  end
  return false
end

-- Of an item on a stem's track, the takes that the earlier job made go to `found`: { item, take, in_section }. `old` is
-- the stem's file; where that is not known, the items that bear the job's id have it in their first take. An item whose
-- takes are stems says by their files alone which is which, and its first take is the source.
local function takes_of(item, ticket, old, found)
  local is_ours = ticket.layout ~= "takes" and job_of(item) == ticket.replaced
  for at = 0, reaper.CountTakes(item) - 1 do
    local take = reaper.GetTake(item, at)
    local by_file, in_section = plays_file(take, old or "")
    -- A section that kept its sound plays the file of a job before that one.
    local by_job = is_ours and take and (in_section or not old and at == 0)
    if by_file or by_job then
      found[#found + 1] = { item = item, take = take, in_section = in_section and (by_file or old ~= nil) }
    end
  end
end

local function each_item(tracks, still, visit)
  for _, track in ipairs(tracks) do
    for index = 0, reaper.CountTrackMediaItems(track) - 1 do
      visit(reaper.GetTrackMediaItem(track, index))
      if not still() then
        return
      end
    end
  end
end

local function tracks_of(ticket, name, known)
  return ticket.layout == "takes" and { known.folder } or known.stems[name] or {}
end

-- What is to get new media, and what keeps its own, goes to `known`: for `project.survey`.
function reseparate.items(ticket, stems, known, still)
  known.takes, known.kept = {}, {}
  for _, stem in ipairs(known.folder and stems or {}) do
    local found = {}
    known.takes[stem.name] = found
    each_item(tracks_of(ticket, stem.name, known), still, function(item)
      takes_of(item, ticket, ticket.replaces[stem.name], found)
    end)
  end
  for name, tracks in pairs(known.stems) do
    each_item(is_in(stems, name) and {} or tracks, still, function(item)
      if job_of(item) == ticket.replaced then
        known.kept[#known.kept + 1] = item
      end
    end)
  end
end

-- Stems that no take is there of become takes of the items that have the others, and look like another stem's take.
local function add_takes(ticket, stems, known)
  local others
  for _, found in pairs(#stems > 0 and known.takes or {}) do
    others = others or #found > 0 and found
  end
  for _, other in ipairs(others or {}) do
    local offset = reaper.GetMediaItemTakeInfo_Value(other.take, "D_STARTOFFS")
    local properties, numbers = insert.take_properties(other.take, 0), {}
    for index, entry in ipairs(stems) do
      numbers[index] = insert.add_take(other.item, entry.stem, offset, source_of(entry.path), ticket)
    end
    for _, number in ipairs(numbers) do -- the item's other takes are not valid afterwards
      insert.set_take_properties(reaper.GetTake(other.item, number), properties)
    end
  end
end

-- A stem's new media: in what is there of it; else in a new item, on its track or on a new one. A new track is muted,
-- so that nothing sounds twice that did not before. Returns whether a take has to be made for it.
local function put_again(proj, ticket, stem, path, place, known, said)
  for _, found in ipairs(known.takes[stem.name]) do
    if found.in_section then
      said[#said + 1] = SECTION:format(text.shown(reaper.GetTakeName(found.take)))
    else
      replace_media(found.take, path)
    end
    reaper.GetSetMediaItemInfo_String(found.item, insert.JOB, ticket.id, true)
  end
  if #known.takes[stem.name] > 0 or ticket.replaces[stem.name] then
    return false -- also where the user has removed it
  elseif ticket.layout == "takes" then
    return true
  end
  local track = tracks_of(ticket, stem.name, known)[1]
  if not track then
    track = layout.add_stem_track(proj, layout.below(known.folder), ticket, stem, 0, known.track)
    layout.number(track, "B_MUTE", 1)
    insert.remember_job(track, ticket.id)
    reaper.TrackList_AdjustWindows(false)
  end
  insert.add_item(track, stem, place, source_of(path), ticket)
  return false
end

-- New media for the items that an earlier job made, wherever they were cut or moved to; all else stays as it is.
-- Outputs that have no track yet get one. known: the tracks, from `project.survey`.
function reseparate.stems(proj, ticket, stems, paths, place, known)
  return insert.undoable(proj, ("tsbs-daw: stems of %s, again"):format(ticket.name), function()
    local said, new = {}, {}
    for index, stem in ipairs(known.folder and stems or {}) do
      if put_again(proj, ticket, stem, paths[index], place, known, said) then
        new[#new + 1] = { stem = stem, path = paths[index] }
      end
    end
    add_takes(ticket, new, known)
    for _, item in ipairs(known.kept) do
      -- What the new job does not have keeps its sound, and is its own from now on: a later job may have it again.
      reaper.GetSetMediaItemInfo_String(item, insert.JOB, ticket.id, true)
    end
    for _, tracks in pairs(known.stems) do
      for _, track in ipairs(tracks) do
        insert.remember_job(track, ticket.id, ticket.replaced)
      end
    end
    if known.folder then
      insert.remember_job(known.folder, ticket.id, ticket.replaced)
      project.note(known.folder, "origin_" .. ticket.id, ticket.origin)
    end
    return said
  end)
end

return reseparate
