-- From a request to tickets: one for each item, or for each track and range, or for each job that is done again.
--
-- A request is what an action wrote down in its one tick. The background script works it off, a little in every tick,
-- while the user goes on: so all in it is named by GUID, and looked up when its turn comes.
local require = ...
local clock, files, json = require("clock"), require("files"), require("json")
local portions, project, settings = require("portions"), require("project"), require("settings")
local stem_choice, text = require("stem_choice"), require("text")

local requests = {}

local MUTED = "%s was read from several items of its track, and none of them is audible now; unmute them and try again."
local RATE = "The project plays at rate %.4g; stems are made at rate 1, and play along with it."

-- Whether what is read from this take is still what was read before.
local function is_as_it_was(take, kept)
  return take
    and reaper.GetMediaItemTakeInfo_Value(take, "D_STARTOFFS") == kept.offset_s
    and reaper.GetMediaItemTakeInfo_Value(take, "D_PLAYRATE") == kept.playrate
end

local function again_ticket(work, number, folder, id, wanted)
  local kept = json.decode(project.note(folder, "origin_" .. id))
  if type(kept) ~= "table" or kept.schema ~= 1 or not wanted[kept.group] then
    return nil
  end
  local take = kept.take and reaper.GetMediaItemTakeByGUID(work.proj, kept.take)
  if kept.spec.kind ~= "file" and kept.spec.kind ~= "track" and not is_as_it_was(take, kept) then
    return nil, ("The source of %s is gone or has changed; separate it again."):format(text.shown(kept.name))
  elseif kept.spec.kind == "track" then
    local track = project.track(work.proj, kept.track, work.pause)
    local items = track and portions.playing(work, track, kept.position_s, kept.position_s + kept.length_s)
    if not items or #items == 0 then
      return nil, MUTED:format(text.shown(kept.name))
    end
  end
  kept.schema = nil
  kept.replaces, kept.replaced = {}, id
  for stem, name in pairs(kept.files) do
    kept.replaces[stem] = files.join(kept.folder, name)
  end
  kept.files, kept.folder = nil, nil
  kept.source = "untouched"
  local options = work.request.options
  kept.stems = stem_choice.again(work.installed, options.preset, options.stems, kept.replaces)
  return portions.ticket(work, number, kept)
end

-- Ways to go through a request: each calls `work.take(number, make, ...)` for everything in it.
local ways = {}

function ways.items(work)
  for number, entry in ipairs(work.request.items) do
    local find, item = project.item_finder(work.proj, entry.item, entry.take), false
    while item == false do
      item = find()
      if item == false then
        work.pause()
      end
    end
    if item then
      work.take(number, portions.of_item, item, 0, reaper.GetMediaItemInfo_Value(item, "D_LENGTH"))
    else
      work.say("An item was removed before it could be read.")
    end
  end
end

function ways.ranges(work)
  local number = 0
  for _, range in ipairs(work.request.ranges) do
    for _, guid in ipairs(range.track and { range.track } or work.request.tracks) do
      number = number + 1
      local track = project.track(work.proj, guid, work.pause)
      if track then
        work.take(number, portions.of_range, track, range)
      end
    end
  end
end

-- Every job whose stems are in the chosen folders; the newest of each place.
function ways.again(work)
  local wanted, number, index = {}, 0, 0
  for _, group in ipairs(work.request.groups) do
    wanted[group] = true
  end
  while index < reaper.CountTracks(work.proj) do
    local track = reaper.GetTrack(work.proj, index)
    local is_wanted = false
    for group in project.folder_groups(track) do
      is_wanted = is_wanted or wanted[group]
    end
    if is_wanted then
      local guid = project.track_guid(track)
      for id in project.note(track, "jobs"):gmatch("%S+") do
        number = number + 1
        local folder = project.track(work.proj, guid, work.pause)
        if folder then
          work.take(number, again_ticket, folder, id, wanted)
        end
      end
    end
    index = index + 1
    work.pause()
  end
end

-- Whether the daemon has had a job of this id: the request was worked off before, and cut short.
local function is_known(spool, id)
  return spool:progress(id) ~= nil or spool:result(id) ~= nil
end

-- Begin to work a request off.
--
-- Returns a step function: true and sentences when all its tickets are kept; false when there is more to do; nil when
-- the project was closed. Returns nil alone while it is not open.
function requests.of(desk, spool, request)
  local proj = project.find(request.project)
  if not proj then
    return nil
  end
  local closed = {}
  return clock.sliced(function(pause)
    if not project.is_open(proj) then
      return nil -- since then
    end
    local said, kept = {}, 0
    local work = { request = request, proj = proj, rate = reaper.Master_GetPlayRate(proj) }
    work.installed = settings.installed() or {}
    function work.say(sentence)
      said[#said + 1] = sentence
    end
    function work.pause()
      local paused = pause()
      if paused and not project.is_open(proj) then
        error(closed, 0)
      end
      return paused
    end
    function work.take(number, make, ...)
      if not is_known(spool, ("%s-%d"):format(request.id, number)) then
        local ticket, err = make(work, number, ...)
        if ticket then
          local ok, why = desk:keep(ticket)
          kept, err = kept + (ok and 1 or 0), why
        end
        said[#said + 1] = err
      end
      work.pause()
    end
    local ok, err = pcall(ways[request.what], work)
    if not ok and err == closed then
      return nil
    elseif not ok then
      error(err, 0)
    end
    if kept > 0 and work.rate ~= 1 then
      work.say(RATE:format(work.rate))
    elseif kept == 0 and #said == 0 then
      work.say(request.nothing)
    end
    return true, said
  end)
end

return requests
