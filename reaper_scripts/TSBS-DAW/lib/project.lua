-- Finding a project, a track, an item again: by what is stored in them, never by a handle that was kept.
local require = ...
local clock, text = require("clock"), require("text")

local project = {}

local SECTION = "TSBS-DAW"
local SCAN_ITEMS = 200 -- in one step; each costs some microseconds

local function stored_id(proj)
  local found, id = reaper.GetProjExtState(proj, SECTION, "project")
  return found > 0 and id ~= "" and id or nil
end

-- The name that this project has for us; it is saved with the project, so that "save as" does not lose it.
function project.id(proj)
  local id = stored_id(proj)
  if not id then
    id = text.new_id()
    reaper.SetProjExtState(proj, SECTION, "project", id)
  end
  return id
end

-- The open project of this name, in whatever tab it is.
function project.find(id)
  local index = 0
  local proj = reaper.EnumProjects(index)
  while proj do
    if stored_id(proj) == id then
      return proj
    end
    index = index + 1
    proj = reaper.EnumProjects(index)
  end
  return nil
end

function project.current()
  return (reaper.EnumProjects(-1))
end

function project.is_open(proj)
  return reaper.ValidatePtr2(0, proj, "ReaProject*")
end

function project.name(proj)
  local name = reaper.GetProjectName(proj)
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

function project.track(proj, guid)
  for track, index in project.tracks(proj) do
    if project.track_guid(track) == guid then
      return track, index
    end
  end
  return nil
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

-- What the tracks of a project know of a group of stems, in one look through all of them, however many there are: a
-- step function that ends with
--
--   state: the project's, at which this was so; has_job: whether the job's stems are there already
--   track: the one with this GUID; folder: the group's; stems: the group's other tracks, a list for each stem's name
function project.survey(proj, group, id, guid)
  local function look(pause)
    local found = { state = reaper.GetProjectStateChangeCount(proj), stems = {} }
    for track in project.tracks(proj) do
      if project.track_guid(track) == guid then
        found.track = track
      end
      if project.note(track, "group") == group then
        local stem = project.note(track, "stem")
        found.has_job = found.has_job
          or (" " .. project.note(track, "jobs") .. " "):find(" " .. id .. " ", 1, true) ~= nil
        if stem == "" then
          found.folder = track
        else
          found.stems[stem] = found.stems[stem] or {}
          table.insert(found.stems[stem], track)
        end
      end
      if pause() and reaper.GetProjectStateChangeCount(proj) ~= found.state then
        return nil
      end
    end
    return found
  end
  return clock.sliced(function(pause)
    local found
    repeat
      found = look(pause)
    until found
    return found
  end)
end

return project
