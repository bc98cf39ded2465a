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

-- Give new media to what the earlier job made on a track. `old` is its file; where that is not known, the items that
-- bear its id have it in their first take. Returns whether there was any; sentences go to `said`.
local function replace_in(track, ticket, old, new, said)
  local found = false
  for index = 0, reaper.CountTrackMediaItems(track) - 1 do
    local item = reaper.GetTrackMediaItem(track, index)
    local ours = not old and job_of(item) == ticket.replaced
    for at = 0, reaper.CountTakes(item) - 1 do
      local take = reaper.GetTake(item, at)
      local ours_by_file, in_section = plays_file(take, old or "")
      if ours_by_file and in_section then
        said[#said + 1] = SECTION:format(text.shown(reaper.GetTakeName(take)))
        found = true
      elseif ours_by_file or ours and at == 0 and take then
        replace_media(take, new)
        reaper.GetSetMediaItemInfo_String(item, insert.JOB, ticket.id, true)
        found = true
      end
    end
  end
  return found
end

-- What the new job does not have keeps its sound, and is known as its own from now on: a later job may have it again.
local function keep_in(track, ticket)
  for index = 0, reaper.CountTrackMediaItems(track) - 1 do
    local item = reaper.GetTrackMediaItem(track, index)
    if job_of(item) == ticket.replaced then
      reaper.GetSetMediaItemInfo_String(item, insert.JOB, ticket.id, true)
    end
  end
end

-- A stem's new media: in what is there of it; else in a new item, on its track or on a new one. A new track is muted,
-- so that nothing sounds twice that did not before.
local function put_again(proj, ticket, stem, path, place, known, said)
  local tracks, found = known.stems[stem.name] or {}, false
  if ticket.layout == "takes" then
    tracks = { known.folder }
  end
  for _, track in ipairs(tracks) do
    found = replace_in(track, ticket, ticket.replaces[stem.name], path, said) or found
  end
  if found or ticket.replaces[stem.name] then
    return -- also where the user has removed it
  end
  local track = tracks[1]
  if not track then
    track = layout.add_stem_track(proj, layout.below(known.folder), ticket, stem, 0)
    layout.number(track, "B_MUTE", 1)
    insert.remember_job(track, ticket.id)
  end
  insert.add_item(track, stem, place, assert(reaper.PCM_Source_CreateFromFile(path), "a stem is damaged"), ticket)
end

local function is_in(stems, name)
  for _, stem in ipairs(stems) do
    if stem.name == name then
      return true
    end
  end
  return false
end

-- New media for the items that an earlier job made, wherever they were cut or moved to; all else stays as it is.
-- Outputs that have no track yet get one. known: the tracks, from `project.survey`.
function reseparate.stems(proj, ticket, stems, paths, place, known)
  return insert.undoable(proj, ("tsbs-daw: stems of %s, again"):format(ticket.name), function()
    local said = {}
    for index, stem in ipairs(known.folder and stems or {}) do
      put_again(proj, ticket, stem, paths[index], place, known, said)
    end
    for name, tracks in pairs(known.stems) do
      for _, track in ipairs(tracks) do
        if not is_in(stems, name) then
          keep_in(track, ticket)
        end
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
