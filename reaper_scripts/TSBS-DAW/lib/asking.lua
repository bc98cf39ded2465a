-- From what is selected in REAPER to tickets, one for each item, or for each track and range.
local use = ...
local courier, files, json, project = use("courier"), use("files"), use("json"), use("project")
local protocol, recording, settings, sources = use("protocol"), use("recording"), use("settings"), use("source")
local spools, text, tickets = use("spool"), use("text"), use("tickets")

local asking = {}

local SONG_CHARACTERS = 60

-- What the user chose: preset, model, stems (nil for all), source, fx. `changes` may name another preset.
function asking.options(changes)
  local options = {
    preset = settings.choice("preset"),
    model = settings.choice("model"),
    stems = settings.chosen_stems(),
    source = settings.choice("source"),
    fx = settings.choice("fx") == "yes",
  }
  if changes and changes.preset then
    -- The tracks that were chosen are another preset's.
    options.preset, options.stems = changes.preset, nil
  end
  return options
end

local function ticket_for(proj, options, fields)
  local id = text.new_id()
  local song = text.cut(fields.name, SONG_CHARACTERS) .. (fields.label and " " .. fields.label or "")
  local output = files.plain(recording.output(proj))
  local ticket = {
    id = id,
    stage = "wanted",
    project = { id = project.id(proj), name = project.name(proj) },
    stems = options.stems,
    source = options.source,
    asked_unix_s = os.time(),
  }
  for name, value in pairs(fields) do
    ticket[name] = value
  end
  ticket.job = protocol.job(id, nil, output, song, options, { project = ticket.project.id, item = ticket.item })
  return ticket
end

-- A ticket for a portion of an item, in seconds from its start; or nil and a sentence.
local function item_ticket(proj, item, options, group, from_s, length_s, label)
  local spec, take, name = sources.of_item(item, from_s, length_s, options.fx)
  if not spec then
    return nil, take
  end
  local track = reaper.GetMediaItemTrack(item)
  local track_guid = project.track_guid(track)
  local whole_s = reaper.GetMediaItemInfo_Value(item, "D_LENGTH")
  return ticket_for(proj, options, {
    name = name,
    label = label,
    group = group .. track_guid,
    spec = spec,
    track = track_guid,
    item = project.item_guid(item),
    take = project.take_guid(take),
    position_s = reaper.GetMediaItemInfo_Value(item, "D_POSITION") + from_s,
    length_s = length_s,
    from_s = from_s,
    lead_s = spec.lead_s,
    offset_s = reaper.GetMediaItemTakeInfo_Value(take, "D_STARTOFFS"),
    playrate = reaper.GetMediaItemTakeInfo_Value(take, "D_PLAYRATE"),
    partial = whole_s - length_s > 1e-6,
    baked = spec.kind == "render",
  })
end

-- Collects tickets and sentences, and hands them on.
local function collection()
  local self = { tickets = {}, said = {} }
  function self.add(ticket, err)
    if ticket then
      self.tickets[#self.tickets + 1] = ticket
    elseif err then
      self.said[#self.said + 1] = err
    end
  end
  return self
end

-- Keep the tickets, wake the courier, and tell the user what there is to tell. Returns how many jobs were asked for.
local function hand_on(found, nothing)
  local installed, err = settings.installed()
  local kept = 0
  if installed then
    local desk = tickets.at(installed.spool)
    for _, ticket in ipairs(found.tickets) do
      local ok, why = desk:keep(ticket)
      kept = kept + (ok and 1 or 0)
      found.add(nil, why)
    end
    if #found.tickets == 0 and #found.said == 0 then
      found.add(nil, nothing)
    end
  else
    found.said = { err }
  end
  if kept > 0 then
    courier.wake()
  end
  settings.word("said", table.concat(found.said, "\n"))
  if #found.said > 0 or installed and not spools.at(installed.spool):alive() then
    use("jobs_window").show()
  end
  return kept
end

-- Every selected item, on whatever tracks.
function asking.selected_items(options)
  local proj, found, group = project.current(), collection(), text.new_id()
  for index = 0, reaper.CountSelectedMediaItems(proj) - 1 do
    local item = reaper.GetSelectedMediaItem(proj, index)
    found.add(item_ticket(proj, item, options, group, 0, reaper.GetMediaItemInfo_Value(item, "D_LENGTH")))
  end
  return hand_on(found, "No item is selected; select one or more, and run the action again.")
end

local function playing(track, from_s, to_s)
  local found = {}
  for index = 0, reaper.CountTrackMediaItems(track) - 1 do
    local item = reaper.GetTrackMediaItem(track, index)
    local position = reaper.GetMediaItemInfo_Value(item, "D_POSITION")
    local ends = position + reaper.GetMediaItemInfo_Value(item, "D_LENGTH")
    if position < to_s and ends > from_s and reaper.GetMediaItemInfo_Value(item, "B_MUTE") == 0 then
      found[#found + 1] = { item = item, covers = position <= from_s + 1e-9 and ends >= to_s - 1e-9, at = position }
    end
  end
  return found
end

-- What one track plays between two moments: a portion of its only item, or all its items as they sound together.
local function range_ticket(proj, track, options, group, from_s, to_s, label)
  local items = playing(track, from_s, to_s)
  if #items == 0 then
    return nil
  elseif #items == 1 and items[1].covers then
    return item_ticket(proj, items[1].item, options, group, from_s - items[1].at, to_s - from_s, label)
  end
  local spec, err = sources.of_track(proj, track, from_s, to_s - from_s)
  if not spec then
    return nil, err
  end
  local _, track_name = reaper.GetSetMediaTrackInfo_String(track, "P_NAME", "", false)
  local guid = project.track_guid(track)
  return ticket_for(proj, options, {
    name = track_name ~= "" and track_name or "track",
    label = label,
    group = group .. guid,
    spec = spec,
    track = guid,
    position_s = from_s,
    length_s = to_s - from_s,
    from_s = 0,
    partial = true,
  })
end

local function selected_tracks(proj)
  local found = {}
  for index = 0, reaper.CountSelectedTracks(proj) - 1 do
    found[#found + 1] = reaper.GetSelectedTrack(proj, index)
  end
  return found
end

-- The time selection, on every selected track.
function asking.time_selection(options)
  local proj, found, group = project.current(), collection(), text.new_id()
  local from_s, to_s = reaper.GetSet_LoopTimeRange2(proj, false, false, 0, 0, false)
  for _, track in ipairs(to_s > from_s and selected_tracks(proj) or {}) do
    found.add(range_ticket(proj, track, options, group, from_s, to_s))
  end
  return hand_on(found, "Nothing plays there; make a time selection, and select tracks that have items in it.")
end

local function regions(proj)
  local found, index = {}, 0
  while true do
    local more, is_region, from_s, to_s, name, id = reaper.EnumProjectMarkers3(proj, index)
    if more == 0 then
      return found
    elseif is_region and to_s > from_s then
      found[#found + 1] = { from_s = from_s, to_s = to_s, name = name ~= "" and name or tostring(id) }
    end
    index = index + 1
  end
end

-- Every region, on every selected track.
function asking.regions(options)
  local proj, found, group = project.current(), collection(), text.new_id()
  local tracks = selected_tracks(proj)
  for _, region in ipairs(regions(proj)) do
    for _, track in ipairs(tracks) do
      found.add(range_ticket(proj, track, options, group, region.from_s, region.to_s, region.name))
    end
  end
  return hand_on(found, "Nothing plays there; make regions, and select tracks that have items in them.")
end

-- Whether what is read from this take is still what was read before.
local function is_as_it_was(take, kept)
  return take
    and reaper.GetMediaItemTakeInfo_Value(take, "D_STARTOFFS") == kept.offset_s
    and reaper.GetMediaItemTakeInfo_Value(take, "D_PLAYRATE") == kept.playrate
end

local function again_ticket(proj, folder, id, options)
  local kept = json.decode(project.note(folder, "origin_" .. id))
  if type(kept) ~= "table" or kept.schema ~= 1 then
    return nil
  end
  local take = kept.take and reaper.GetMediaItemTakeByGUID(proj, kept.take)
  if kept.spec.kind ~= "file" and kept.spec.kind ~= "track" and not is_as_it_was(take, kept) then
    return nil, ("The source of %s is gone or was changed; separate it anew."):format(text.shown(kept.name))
  end
  kept.schema = nil
  kept.replaces, kept.replaced = {}, id
  for stem, name in pairs(kept.files) do
    kept.replaces[stem] = files.join(kept.folder, name)
  end
  kept.files, kept.folder = nil, nil
  kept.group = project.note(folder, "group")
  kept.source = "untouched"
  local ticket = ticket_for(proj, options, kept)
  ticket.stems = nil
  return ticket
end

-- Every job whose stems are on the selected tracks, or in the selected folders; the newest of each place.
function asking.again(options)
  local proj, found, wanted = project.current(), collection(), {}
  for _, track in ipairs(selected_tracks(proj)) do
    wanted[project.note(track, "group")] = true
  end
  for track in project.tracks(proj) do
    local group = project.note(track, "group")
    if group ~= "" and wanted[group] and project.note(track, "stem") == "" then
      for id in project.note(track, "jobs"):gmatch("%S+") do
        found.add(again_ticket(proj, track, id, options))
      end
    end
  end
  return hand_on(found, "No selected track was made by tsbs-daw; select a stem track, or its folder.")
end

return asking
