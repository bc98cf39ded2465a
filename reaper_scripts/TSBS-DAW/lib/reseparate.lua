-- Puts new stems in the place of those of an earlier job: for "re-separate in place".
local require = ...
local files, insert, layout = require("files"), require("insert"), require("layout")
local project, sources, text = require("project"), require("source"), require("text")

local reseparate = {}

local function job_of(item)
  local _, id = reaper.GetSetMediaItemInfo_String(item, insert.JOB, "", false)
  return id
end

local SECTION = "%s plays a section of its stem, or plays it reversed, so it keeps its sound; glue it, or put it right."

-- Whether a take plays a file, as it is or through a section; and whether through one.
local function plays_file(take, path)
  local media = take and reaper.GetMediaItemTake_Source(take)
  if not media then
    return false, false
  end
  local root = sources.root_of(media)
  return files.plain(reaper.GetMediaSourceFileName(root)) == path, root ~= media
end

-- The old source is not a take's any more, and REAPER leaves it to whoever replaced it.
local function replace_media(take, path)
  local old, fresh = reaper.GetMediaItemTake_Source(take), reaper.PCM_Source_CreateFromFile(path)
  assert(fresh, "a stem is damaged")
  reaper.SetMediaItemTake_Source(take, fresh)
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
-- the stem's file; where that is not known, the items that bear the job's id have it in their first take.
local function takes_of(item, ticket, old, found)
  local ours = not old and job_of(item) == ticket.replaced
  for at = 0, reaper.CountTakes(item) - 1 do
    local take = reaper.GetTake(item, at)
    local ours_by_file, in_section = plays_file(take, old or "")
    if ours_by_file or ours and at == 0 and take then
      found[#found + 1] = { item = item, take = take, in_section = ours_by_file and in_section }
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

-- A stem's new media: in what is there of it; else in a new item, on its track or on a new one. A new track is muted,
-- so that nothing sounds twice that did not before.
local function put_again(proj, ticket, stem, path, place, known, said)
  for _, found in ipairs(known.takes[stem.name]) do
    if found.in_section then
      said[#said + 1] = SECTION:format(text.shown(reaper.GetTakeName(found.take)))
    else
      replace_media(found.take, path)
      reaper.GetSetMediaItemInfo_String(found.item, insert.JOB, ticket.id, true)
    end
  end
  if #known.takes[stem.name] > 0 or ticket.replaces[stem.name] then
    return -- also where the user has removed it
  end
  local track = tracks_of(ticket, stem.name, known)[1]
  if not track then
    track = layout.add_stem_track(proj, layout.below(known.folder), ticket, stem, 0)
    layout.number(track, "B_MUTE", 1)
    insert.remember_job(track, ticket.id)
  end
  insert.add_item(track, stem, place, assert(reaper.PCM_Source_CreateFromFile(path), "a stem is damaged"), ticket)
end

-- New media for the items that an earlier job made, wherever they were cut or moved to; all else stays as it is.
-- Outputs that have no track yet get one. known: the tracks, from `project.survey`.
function reseparate.stems(proj, ticket, stems, paths, place, known)
  return insert.undoable(proj, ("tsbs-daw: stems of %s, again"):format(ticket.name), function()
    local said = {}
    for index, stem in ipairs(known.folder and stems or {}) do
      put_again(proj, ticket, stem, paths[index], place, known, said)
    end
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
