-- Finding a project, a track, an item again: by what is stored in them, never by a handle that was kept.
local require = ...
local clock, files, settings, text = require("clock"), require("files"), require("settings"), require("text")

local project = {}

local SECTION = "TSBS-DAW"
local IDS = 8 -- of a project's names that are kept
local SCAN_ITEMS = 50 -- in one step; each costs some microseconds

local function stored(proj, key)
  local found, value = reaper.GetProjExtState(proj, SECTION, key)
  return found > 0 and value or ""
end

local function path_of(wanted)
  local index = 0
  local proj, path = reaper.EnumProjects(index, "")
  while proj and proj ~= wanted do
    index = index + 1
    proj, path = reaper.EnumProjects(index, "")
  end
  return proj and path or ""
end

-- A project that has no file yet is only known to be itself in the REAPER that gave it its id.
local function is_new_here(id)
  return settings.word("unsaved_" .. id) ~= ""
end

-- The name that this project has for us. It is saved with the project, and so it is also in every copy of its file and
-- in all that is made from it as a template: in a file of another name, and in a project without a file that did not
-- get it here, it gets a new one. The earlier ones are kept after it, so that "save as" loses nothing.
function project.id(proj)
  local ids, file, path = {}, stored(proj, "file"), path_of(proj)
  for id in stored(proj, "project"):gmatch("%S+") do
    ids[#ids + 1] = id
  end
  if #ids == 0 or file ~= "" and file ~= path or path == "" and not is_new_here(ids[1]) then
    table.insert(ids, 1, text.new_id())
    reaper.SetProjExtState(proj, SECTION, "project", table.concat(ids, " ", 1, math.min(#ids, IDS)))
  end
  if path == "" then
    settings.word("unsaved_" .. ids[1], "1")
  end
  if file ~= path then
    reaper.SetProjExtState(proj, SECTION, "file", path)
  end
  return ids[1]
end

-- By what a ticket names its project: id, name, and the file that it was in.
function project.reference(proj)
  return { id = project.id(proj), name = project.name(proj), path = files.plain(path_of(proj)) }
end

-- Whether a project has what a ticket speaks of: its take or, for a portion of a track, its track.
local function has(proj, ticket, pause)
  if ticket.take then
    return reaper.GetMediaItemTakeByGUID(proj, ticket.take) ~= nil
  end
  return ticket.track ~= nil and project.track(proj, ticket.track, pause) ~= nil
end

local seen = {} -- id of a project -> where it was seen last: proj, its file's path, and its first track

-- Whether what is in this tab is what was in it before, under its earlier name: after "save as", and not when another
-- project was opened in its place, whose tracks are others.
local function is_saved_as(proj, path, id)
  local known = seen[id]
  local same_tab = known ~= nil and known.proj == proj
  return same_tab and (path == known.path or known.track and reaper.ValidatePtr2(proj, known.track, "MediaTrack*"))
end

-- Whether an open project that bears the id is the one that is meant: its file is open there, or was until it was saved
-- under another name. A copy, or what was made from it as a template, bears the id too, and is another project as long
-- as the file is there.
local function is_meant(proj, path, wanted)
  if wanted.path == nil or path == wanted.path and path ~= "" then
    return true
  elseif path == "" then
    return wanted.path == "" and is_new_here(wanted.id)
  end
  return wanted.path == "" or is_saved_as(proj, path, wanted.id) or not files.exists(wanted.path)
end

-- The open project that a reference means, in whatever tab it is; of several, the one that has what the ticket speaks
-- of. pause: called now and then where many tracks have to be looked at, or nil
function project.find(wanted, ticket, pause)
  local index, first = 0, nil
  local proj, path = reaper.EnumProjects(index, "")
  while proj do
    path = files.plain(path)
    local ids = " " .. stored(proj, "project") .. " "
    if ids:find(" " .. wanted.id .. " ", 1, true) and is_meant(proj, path, wanted) then
      if path ~= "" then
        seen[wanted.id] = { proj = proj, path = path, track = reaper.GetTrack(proj, 0) }
      end
      if not ticket or has(proj, ticket, pause) then
        return proj
      end
      first = first or proj
    end
    index = index + 1
    proj, path = reaper.EnumProjects(index, "")
  end
  return first and project.is_open(first) and first or nil
end

function project.current()
  return (reaper.EnumProjects(-1, ""))
end

function project.is_open(proj)
  return reaper.ValidatePtr2(0, proj, "ReaProject*")
end

function project.name(proj)
  local name = reaper.GetProjectName(proj, "")
  return name ~= "" and name or "an unsaved project"
end

function project.track_guid(track)
  local _, guid = reaper.GetSetMediaTrackInfo_String(track, "GUID", "", false)
  return guid
end

function project.item_guid(item)
  local _, guid = reaper.GetSetMediaItemInfo_String(item, "GUID", "", false)
  return guid
end

function project.take_guid(take)
  local _, guid = reaper.GetSetMediaItemTakeInfo_String(take, "GUID", "", false)
  return guid
end

-- A step function that looks an item up: the item, nil when it is gone, or false when there is more to look through.
function project.item_finder(proj, item_guid, take_guid)
  local index = 0
  return function()
    if index == 0 then
      local take = take_guid and reaper.GetMediaItemTakeByGUID(proj, take_guid)
      local item = take and reaper.GetMediaItemTake_Item(take)
      if item and project.item_guid(item) == item_guid then
        return item
      end
    end
    local last = math.min(index + SCAN_ITEMS, reaper.CountMediaItems(proj))
    while index < last do
      local item = reaper.GetMediaItem(proj, index)
      if project.item_guid(item) == item_guid then
        return item
      end
      index = index + 1
    end
    if index >= reaper.CountMediaItems(proj) then
      return nil
    end
    return false
  end
end

function project.tracks(proj)
  local index = -1
  return function()
    index = index + 1
    return reaper.GetTrack(proj, index), index
  end
end

local tracks = {} -- GUID -> where the track was seen last

local function known_track(proj, guid)
  local track = tracks[guid]
  local lives = track and reaper.ValidatePtr2(proj, track, "MediaTrack*") and project.track_guid(track) == guid
  return lives and track or nil
end

-- The track of this GUID; nil where there is none, or the project was closed. pause: called after every track, or nil
function project.track(proj, guid, pause)
  local found, index = known_track(proj, guid), 0
  while not found do
    local track = reaper.GetTrack(proj, index)
    if not track then
      return nil
    end
    local its_guid = project.track_guid(track)
    tracks[its_guid], found, index = track, its_guid == guid and track, index + 1
    local state = pause and not found and reaper.GetProjectStateChangeCount(proj)
    if state and pause() then
      if not project.is_open(proj) then
        return nil
      end
      index = reaper.GetProjectStateChangeCount(proj) == state and index or 0
    end
  end
  return found
end

-- What a track remembers for us. Tracks made by these scripts know their jobs, their group and their stem.
function project.note(track, key, value)
  local name = "P_EXT:tsbs_daw_" .. key
  if value then
    reaper.GetSetMediaTrackInfo_String(track, name, value, true)
    return value
  end
  local _, found = reaper.GetSetMediaTrackInfo_String(track, name, "", false)
  return found or ""
end

-- A track is the folder of a group of stems that it was made for or, where it is the source's own, of several.
function project.add_to_folder(track, group)
  if not project.is_folder_of(track, group) then
    local known = project.note(track, "folder_of")
    project.note(track, "folder_of", known == "" and group or known .. " " .. group)
  end
end

function project.folder_groups(track)
  return project.note(track, "folder_of"):gmatch("%S+")
end

function project.is_folder_of(track, group)
  return (" " .. project.note(track, "folder_of") .. " "):find(" " .. group .. " ", 1, true) ~= nil
end

-- What a track knows of a group of stems goes to `found`.
local function look_at_track(track, found, group, id, guid)
  if project.track_guid(track) == guid then
    found.track = track
  end
  local is_folder, is_stem = project.is_folder_of(track, group), project.note(track, "group") == group
  if is_folder then
    found.folder = track
  end
  if is_stem then
    local stem = project.note(track, "stem")
    found.stems[stem] = found.stems[stem] or {}
    table.insert(found.stems[stem], track)
  end
  if is_folder or is_stem then
    local jobs = " " .. project.note(track, "jobs") .. " "
    found.has_job = found.has_job or jobs:find(" " .. id .. " ", 1, true) ~= nil
  end
end

-- What the tracks of a project know of a group of stems, in one look through all of them, however many there are: a
-- step function that ends with
--
--   state: the project's, at which this was so; has_job: whether the job's stems are there already
--   track: the one with this GUID; folder: the group's; stems: the group's other tracks, a list for each stem's name
--
-- more: looks at items too, or nil. `more(found, still)` adds what it finds, and calls `still()` between two items:
-- when that is false, the project has changed, and what was found is worth nothing.
function project.survey(proj, group, id, guid, more)
  return clock.sliced(function(pause)
    while true do
      local found = { state = reaper.GetProjectStateChangeCount(proj), stems = {} }
      local is_whole = true
      local function still()
        is_whole = is_whole and not (pause() and reaper.GetProjectStateChangeCount(proj) ~= found.state)
        return is_whole
      end
      for track in project.tracks(proj) do
        look_at_track(track, found, group, id, guid)
        if not still() then
          break
        end
      end
      if is_whole and more then
        more(found, still)
      end
      if is_whole then
        return found
      end
    end
  end)
end

return project
