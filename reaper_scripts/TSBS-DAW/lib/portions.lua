-- From an item, or from what a track plays between two moments, to the ticket of a job.
--
-- `work` is a request that is being worked off: request, proj, rate (the project's), installed, pause.
local require = ...
local files, json, project = require("files"), require("json"), require("project")
local protocol, recording, sources = require("protocol"), require("recording"), require("source")
local stem_choice, text = require("stem_choice"), require("text")

local portions = {}

local SONG_CHARACTERS = 60
local EFFECTS = "%s has take effects, which are not in its stems; check *Include take effects* to include them."
local EFFECTS_TOGETHER = "%s has take effects and is read together with other items; the stems may be with or without "
  .. "them. Separate it alone to choose."
local RENDER = "The project plays at rate %.4g, which a render with take effects would include; set it to 1 first."

-- What belongs to every ticket of a request. `number` makes its id, so that a request that is worked off twice, after a
-- crash, asks for nothing twice.
function portions.ticket(work, number, fields)
  local options = work.request.options
  local song = text.cut(fields.name, SONG_CHARACTERS) .. (fields.label and " " .. fields.label or "")
  local ticket = {
    id = ("%s-%d"):format(work.request.id, number),
    stage = "wanted",
    project = work.request.project,
    owner = work.request.owner,
    stems = options.stems,
    source = options.source,
    layout = options.layout,
    analysis = options.analysis,
    listen = options.listen or nil,
    asked_unix_s = os.time(),
  }
  for name, value in pairs(fields) do
    ticket[name] = value
  end
  local deliver = { project = ticket.project.id, item = ticket.item }
  local written = stem_choice.to_write(work.installed, options.model, options.preset, ticket.stems)
  ticket.stems = written and ticket.stems
  ticket.job = protocol.job(ticket.id, files.plain(recording.output(work.proj)), song, options, written, deliver)
  return ticket
end

-- A ticket for a portion of an item, in seconds from its start; or nil and a sentence.
function portions.of_item(work, number, item, from_s, length_s, label)
  local spec, take, name = sources.of_item(item, from_s, length_s, work.request.options.fx)
  if not spec then
    return nil, take
  elseif spec.kind == "render" and work.rate ~= 1 then
    return nil, RENDER:format(work.rate)
  elseif spec.kind ~= "render" and reaper.TakeFX_GetCount(take) > 0 and not work.request.options.analysis then
    work.say(EFFECTS:format(text.shown(name)))
  end
  local track = project.track_guid(reaper.GetMediaItemTrack(item))
  local whole_s = reaper.GetMediaItemInfo_Value(item, "D_LENGTH")
  local partial = whole_s - length_s > 1e-6
  return portions.ticket(work, number, {
    name = name,
    label = label,
    group = work.request.group .. track,
    spec = spec,
    track = track,
    item = project.item_guid(item),
    take = project.take_guid(take),
    position_s = reaper.GetMediaItemInfo_Value(item, "D_POSITION") + from_s,
    length_s = length_s,
    from_s = from_s,
    lead_s = spec.lead_s,
    offset_s = reaper.GetMediaItemTakeInfo_Value(take, "D_STARTOFFS"),
    playrate = reaper.GetMediaItemTakeInfo_Value(take, "D_PLAYRATE"),
    partial = partial,
    parts = partial and json.list({ sources.trace(item) }) or nil,
    baked = spec.kind == "render",
  })
end

-- The items of a track that are heard between two moments, what they can be read at, and what they are known by; or
-- nil and a sentence. When the project changes on the way, it is looked through again.
function portions.playing(work, track, from_s, to_s)
  local found, index = { rates = {}, channels = {}, traces = json.list() }, 0
  local state = reaper.GetProjectStateChangeCount(work.proj)
  while index < reaper.CountTrackMediaItems(track) do
    local item = reaper.GetTrackMediaItem(track, index)
    local position = reaper.GetMediaItemInfo_Value(item, "D_POSITION")
    local ends = position + reaper.GetMediaItemInfo_Value(item, "D_LENGTH")
    if position < to_s and ends > from_s and sources.plays(item, track) then
      local take, name, _, _, facts = sources.check(item)
      if not take then
        return nil, name
      end
      found[#found + 1] = { item = item, covers = position <= from_s + 1e-9 and ends >= to_s - 1e-9, at = position }
      found.rates[#found], found.channels[#found] = facts.rate, facts.channels
      found.traces[#found] = sources.trace(item)
      found.stale = found.stale or facts.stale and name
      found.effects = found.effects or reaper.TakeFX_GetCount(take) > 0 and name
    end
    index = index + 1
    if work.pause() and reaper.GetProjectStateChangeCount(work.proj) ~= state then
      if not reaper.ValidatePtr2(work.proj, track, "MediaTrack*") then
        return {}
      end
      return portions.playing(work, track, from_s, to_s)
    end
  end
  return found
end

-- What one track plays between two moments: a portion of its only item, or all its items as they sound together.
function portions.of_range(work, number, track, range)
  local items, err = portions.playing(work, track, range.from_s, range.to_s)
  if not items or #items == 0 then
    return nil, err
  elseif #items == 1 and items[1].covers then
    local from_s = range.from_s - items[1].at
    return portions.of_item(work, number, items[1].item, from_s, range.to_s - range.from_s, range.label)
  end
  if items.stale then
    return sources.stale(items.stale)
  elseif items.effects then
    work.say(EFFECTS_TOGETHER:format(text.shown(items.effects)))
  end
  local _, track_name = reaper.GetSetMediaTrackInfo_String(track, "P_NAME", "", false)
  local guid = project.track_guid(track)
  return portions.ticket(work, number, {
    name = track_name ~= "" and track_name or "track",
    label = range.label,
    group = work.request.group .. guid,
    spec = sources.of_track(work.proj, track, range.from_s, range.to_s - range.from_s, items.rates, items.channels),
    track = guid,
    position_s = range.from_s,
    length_s = range.to_s - range.from_s,
    from_s = 0,
    partial = true,
    parts = items.traces,
  })
end

return portions
