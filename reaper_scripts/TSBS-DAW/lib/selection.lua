-- What is selected in REAPER, written down as a request. This is all that an action does: it is over in its first tick,
-- or soon after where hundreds of items are selected. What is requested is worked off by the background script, see
-- `requests`.
local require = ...
local background, clock, daemon = require("background"), require("clock"), require("daemon")
local json, notices, project = require("json"), require("notices"), require("project")
local pending_jobs, settings, spools, text =
  require("pending_jobs"), require("settings"), require("spool"), require("text")

local selection = {}

local IN_ONE = 50 -- items, or ranges, in one request: writing it down, or reading it, takes less than a millisecond
local LOOKED_AT = 10 -- tracks, or markers, between two pauses

-- What the user chose; without `stems`, what the preset writes. `changes` may name another preset, or say what of an
-- analysis is wanted instead of stems.
function selection.options(changes)
  local residual, quality = settings.choice("residual"), settings.choice("quality")
  local options = {
    preset = settings.choice("preset"),
    model = settings.choice("model"),
    stems = settings.chosen_stems(),
    source = settings.choice("source"),
    fx = settings.choice("fx") == "yes",
    layout = settings.choice("layout"),
    residual = residual ~= "" and residual or nil,
    quality = quality ~= "" and quality or nil,
    listen = settings.choice("listen") == "yes",
  }
  if changes and changes.preset then
    -- The tracks that were chosen are another preset's.
    options.preset, options.stems = changes.preset, nil
  end
  if changes and changes.analysis then
    options.analysis = changes.analysis
    options.model, options.fx, options.listen = "default", false, false
  end
  return options
end

local function new_request(proj, what, options, name, nothing)
  return {
    id = text.new_id(),
    stage = "requested",
    what = what,
    name = name,
    nothing = nothing,
    group = text.new_id(),
    options = options,
    project = project.reference(proj),
    owner = pending_jobs.me(),
    job = { preset = options.preset },
  }
end

-- Write requests down, wake the background script, and tell the user at once what there is to tell. `requests` is a
-- body for `clock.run`: it is given `pause` and `keep(request, proj)`, and returns a sentence if nothing is selected.
local function hand_on(requests)
  local installed, missing = settings.installed()
  clock.run(function(pause)
    local said, kept = { missing }, false
    local pending = installed and pending_jobs.at(installed.spool)
    local function keep(request, proj)
      pending:beat()
      local ok, why = pending:keep(request)
      said[#said + 1] = why
      if ok then
        kept = true
        reaper.MarkProjectDirty(proj) -- or REAPER closes it without a question, and its id is lost
      end
    end
    pause() -- loading these modules may have used up the tick
    if installed then
      local nothing = requests(pause, keep)
      said[#said + 1] = nothing
    end
    if kept then
      pause()
      background.wake()
      pause()
    end
    settings.say(said)
    -- A daemon that was started says in the window that it is coming up; one that runs needs no window.
    local spool = installed and spools.at(installed.spool)
    local alive = spool and spool:alive()
    if installed and kept then
      daemon.ensure(installed, spool)
    end
    if #said > 0 or not alive then
      notices.show_jobs()
    end
    return true
  end)
end

-- Calls `pause` once in so many calls.
local function now_and_then(pause)
  local count = 0
  return function()
    count = count + 1
    return count % LOOKED_AT == 0 and pause()
  end
end

-- Keep a request, in several parts where this list of it is long.
local function keep_in_parts(request, name, proj, keep, pause)
  local all = request[name]
  for from = 1, #all, IN_ONE do
    local part = {}
    for key, value in pairs(request) do
      part[key] = value
    end
    part.id = from == 1 and request.id or text.new_id()
    part[name] = json.list(table.move(all, from, math.min(from + IN_ONE - 1, #all), 1, {}))
    keep(part, proj)
    pause()
  end
end

-- Every selected item, on whatever tracks.
function selection.selected_items(options)
  local proj = project.current()
  hand_on(function(pause, keep)
    local request, look_up = new_request(proj, "items", options, "selected items"), now_and_then(pause)
    request.items = json.list()
    for index = 0, reaper.CountSelectedMediaItems(proj) - 1 do
      local item = reaper.GetSelectedMediaItem(proj, index)
      if not item then
        break -- more than one tick: the user has selected something else
      end
      local take = reaper.GetActiveTake(item)
      request.items[#request.items + 1] = { item = project.item_guid(item), take = take and project.take_guid(take) }
      if look_up() and not project.is_open(proj) then
        return nil
      end
    end
    if #request.items == 0 then
      return "No item is selected; select one or more, and run the action again."
    end
    keep_in_parts(request, "items", proj, keep, pause)
  end)
end

-- Call `visit(track)` for each selected track. Tracks that the user selects meanwhile may be left out.
local function each_selected_track(proj, pause, visit)
  pause = now_and_then(pause)
  for index = 0, reaper.CountSelectedTracks(proj) - 1 do
    local track = reaper.GetSelectedTrack(proj, index)
    if not track then
      return
    end
    visit(track)
    if pause() and not project.is_open(proj) then
      return
    end
  end
end

-- find: given the project and `pause`, a list of ranges
local function request_ranges(options, find, name, nothing)
  local proj = project.current()
  hand_on(function(pause, keep)
    local request = new_request(proj, "ranges", options, name, nothing)
    request.tracks = json.list()
    each_selected_track(proj, pause, function(track)
      request.tracks[#request.tracks + 1] = project.track_guid(track)
    end)
    request.ranges = project.is_open(proj) and find(proj, pause) or {}
    if #request.tracks == 0 or #request.ranges == 0 then
      return nothing
    end
    keep_in_parts(request, "ranges", proj, keep, pause)
  end)
end

-- The time selection, on every selected track.
function selection.time_selection(options)
  local from_s, to_s = reaper.GetSet_LoopTimeRange2(project.current(), false, false, 0, 0, false)
  local nothing = "Nothing plays there; make a time selection, and select tracks that have items in it."
  request_ranges(options, function()
    return json.list(to_s > from_s and { { from_s = from_s, to_s = to_s } } or {})
  end, "the time selection", nothing)
end

-- The project's region or marker of this index as a range: false for a marker, nil behind the last one.
local function region(proj, index)
  local more, is_region, from_s, to_s, name, id = reaper.EnumProjectMarkers3(proj, index)
  if more == 0 then
    return nil
  end
  return is_region and to_s > from_s and { from_s = from_s, to_s = to_s, label = name ~= "" and name or tostring(id) }
end

local function regions(proj, pause)
  local found, index = json.list(), 0
  pause = now_and_then(pause)
  while true do
    local range = region(proj, index)
    if range == nil then
      return found
    end
    found[#found + 1] = range or nil
    index = index + 1
    if pause() and not project.is_open(proj) then
      return json.list()
    end
  end
end

-- The region that the edit cursor is in, on every selected track.
function selection.cursor_region(options)
  local proj = project.current()
  local _, index = reaper.GetLastMarkerAndCurRegion(proj, reaper.GetCursorPositionEx(proj))
  local range = index >= 0 and region(proj, index) or nil
  local nothing = "Nothing plays there; put the edit cursor into a region, and select tracks that have items in it."
  request_ranges(options, function()
    return json.list({ range or nil })
  end, "the region", nothing)
end

-- The areas of a track's razor edits: "from to "GUID of an envelope"" each, with an empty GUID for the media.
local function razor_areas(track)
  local _, areas = reaper.GetSetMediaTrackInfo_String(track, "P_RAZOREDITS", "", false)
  return areas:gmatch('(%S+) (%S+) ""')
end

-- Every razor edit of every track, whether it is selected or not.
function selection.razor_edits(options)
  local proj, nothing = project.current(), "There is no razor edit; drag one over items, and run the action again."
  hand_on(function(pause, keep)
    local request = new_request(proj, "ranges", options, "razor edits", "Nothing plays in the razor edits.")
    request.tracks, request.ranges = json.list(), json.list()
    for track in project.tracks(proj) do
      for from_s, to_s in razor_areas(track) do
        local range = { from_s = tonumber(from_s), to_s = tonumber(to_s), track = project.track_guid(track) }
        request.ranges[#request.ranges + 1] = range
      end
      if pause() and not project.is_open(proj) then
        return nil
      end
    end
    if #request.ranges == 0 then
      return nothing
    end
    keep_in_parts(request, "ranges", proj, keep, pause)
  end)
end

-- Every region, on every selected track.
function selection.regions(options)
  local nothing = "Nothing plays there; make regions, and select tracks that have items in them."
  request_ranges(options, regions, "regions", nothing)
end

-- Every job whose stems are on the selected tracks, or in the selected folders; the newest of each place.
function selection.reseparate(options)
  local proj, nothing = project.current(), "No selected track was made by tsbs-daw; select a stem track, or its folder."
  hand_on(function(pause, keep)
    local request, known = new_request(proj, "again", options, "stems again", nothing), {}
    request.groups = json.list()
    each_selected_track(proj, pause, function(track)
      local groups = project.note(track, "group") .. " " .. project.note(track, "folder_of")
      for group in groups:gmatch("%S+") do
        if not known[group] then
          request.groups[#request.groups + 1], known[group] = group, true
        end
      end
    end)
    if #request.groups == 0 then
      return nothing
    end
    keep(request, proj)
  end)
end

return selection
