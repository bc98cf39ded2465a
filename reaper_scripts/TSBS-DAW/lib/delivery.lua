-- From a finished job to tracks, in steps: find the project and the item, have the media in the project's folder,
-- build the peaks, and insert. Everything that takes time happens before the insertion, which is one step.
local require = ...
local analysis, clock, files, insert = require("analysis"), require("clock"), require("files"), require("insert")
local json, place = require("json"), require("place")
local project, protocol, reseparate = require("project"), require("protocol"), require("reseparate")
local silencing, stem_choice, text = require("silencing"), require("stem_choice"), require("text")

local delivery = {}

local LISTEN = "The stems of %s are ready; listen to them, then insert them."
local GONE = "%s is gone from its project; its stems can be put on new tracks."

-- The stems that the user wants, in the result's order; or nil and a sentence.
function delivery.wanted(ticket, result)
  local ok, err = protocol.check_done(result)
  if not ok then
    return nil, err
  end
  local found = stem_choice.wanted(ticket, result.stems)
  if #found == 0 then
    return nil, ("The result of %s has none of the chosen stems."):format(text.shown(ticket.name))
  end
  return found
end

local function is_below(path, folder)
  folder = files.plain(folder) .. "/"
  return files.plain(path):sub(1, #folder) == folder
end

-- Where the stems are, or shall be copied to: a step function that ends with the list of paths.
local function media_step(ticket, result, stems, proj)
  local media = reaper.GetProjectPathEx(proj, "")
  local song = files.name(files.plain(result.folder or "song"))
  local folder = files.join(media, "stems/" .. song .. " " .. ticket.id)
  local paths, index, copy = {}, 1, nil
  return function(over)
    while index <= #stems do
      local path = stems[index].path
      if not files.exists(path) then
        return nil, ("The stem %s is missing; run the job again."):format(text.shown(path))
      elseif is_below(path, media) then
        paths[index] = path
      else
        if not copy then
          local made, err = files.make_folder(folder)
          if not made then
            return nil, err
          end
          paths[index] = files.join(folder, files.name(path))
          copy = files.copier(path, paths[index])
        end
        local done, err = copy(over)
        if not done then
          return done, err
        end
        copy = nil
      end
      index = index + 1
      if over() then
        return false
      end
    end
    return paths
  end
end

local function release(media)
  for _, source in ipairs(media) do
    reaper.PCM_Source_Destroy(source)
  end
end

-- REAPER's sources of these files, checked, with their peaks: a step function that ends with the list.
local function peaks_step(result, paths)
  local media, building = {}, false
  local function step(over)
    for _ = #media, #paths do
      if building then
        while reaper.PCM_Source_BuildPeaks(media[#media], 1) ~= 0 do
          if over() then
            return false
          end
        end
        reaper.PCM_Source_BuildPeaks(media[#media], 2)
        building = false
      end
      if #media == #paths then
        break
      end
      local path = paths[#media + 1]
      local source = reaper.PCM_Source_CreateFromFile(path)
      media[#media + 1] = source
      local length_s = source and reaper.GetMediaSourceLength(source) or 0
      if not source or math.abs(length_s * result.sample_rate - result.samples) > 1 then
        return nil, ("The stem %s is damaged; run the job again."):format(text.shown(path))
      end
      building = reaper.PCM_Source_BuildPeaks(source, 0) ~= 0
    end
    return media
  end
  return step, function()
    release(media)
    media = {}
  end
end

-- What a later "re-separate in place" must know.
-- A project file has room for a line or two, so the paths are given once.
local function origin_of(ticket, stems, paths)
  local made = {}
  for index, stem in ipairs(stems) do
    made[stem.name] = files.name(paths[index])
  end
  local kept = { schema = 1, files = made, folder = files.plain(paths[1]):gsub("/[^/]*$", "") }
  for _, name in ipairs({ "name", "label", "track", "item", "take", "spec", "source", "lead_s" }) do
    kept[name] = ticket[name]
  end
  for _, name in ipairs({
    "position_s",
    "length_s",
    "from_s",
    "offset_s",
    "playrate",
    "partial",
    "baked",
    "layout",
    "group",
  }) do
    kept[name] = ticket[name]
  end
  -- REAPER can write three kinds of quotes into a project file, but not all of them in one text.
  return (json.encode(kept):gsub("['`]", { ["'"] = "\\u0027", ["`"] = "\\u0060" }))
end

-- Begin to deliver a finished job.
--
-- Args: may_cut: a function that says whether items may be cut now, or nil, when they may; pause: see `project.find`
--
-- Returns a step function and one that gives up. The step returns true when the stems are in the project, and sentences
-- about what was left alone; false when there is more to do; nil and a sentence, with "gone" as a third value when the
-- item is not there any more, and "listen" when the user wants to hear the stems first. Returns nil alone while the
-- project is not open.
function delivery.of(ticket, result, may_cut, pause)
  local proj = project.find(ticket.project, ticket, pause)
  if not proj then
    return nil
  end
  if ticket.analysis then
    return analysis.of(proj, ticket, result)
  end
  local stems, wrong = delivery.wanted(ticket, result)
  if stems and ticket.listen then
    return function()
      return nil, LISTEN:format(text.shown(ticket.name)), "listen"
    end
  end
  local find = project.item_finder(proj, ticket.item, ticket.take)
  local item, paths, media, media_copy, peaks, survey, known, is_ready
  local give_up = function() end

  local function look_up(over)
    if not ticket.item then
      return true
    end
    local found
    repeat
      found = find()
    until found ~= false or over()
    if found == nil and ticket.place ~= "new tracks" and not ticket.replaces then
      return nil, GONE:format(text.shown(ticket.name)), "gone"
    end
    item = found or nil
    return found ~= false
  end

  -- Where the stems go. What cannot become takes gets tracks, and is known by that when it is separated again.
  local function place_of(track)
    local at = place.of(proj, ticket, item, track)
    if ticket.layout == "takes" and not silencing.can_have_takes(ticket, at) then
      ticket.layout = "folder"
      ticket.origin = origin_of(ticket, stems, paths)
    end
    return at
  end

  -- Items are looked at before the insertion, which is one step: their tracks may hold any number of them.
  local function look_at_items(found, still)
    if ticket.replaces then
      return reseparate.items(ticket, stems, found, still)
    end
    local at = place_of(found.track)
    found.pieces = insert.needs_pieces(ticket, at) and silencing.pieces(ticket, at, still)
  end

  -- Whether it is known which tracks there are; the project may change until then, and from then on.
  local function look_through(over)
    if item and not reaper.ValidatePtr2(proj, item, "MediaItem*") then
      find, item, survey, known = project.item_finder(proj, ticket.item, ticket.take), nil, nil, nil
      return false
    elseif not known or reaper.GetProjectStateChangeCount(proj) ~= known.state then
      survey = survey or project.survey(proj, ticket.group, ticket.id, ticket.track, look_at_items)
      known, is_ready = survey(over) or nil, false
      survey = not known and survey or nil
    end
    return known ~= nil
  end

  local function has_leave()
    return not may_cut or not ticket.partial or ticket.source ~= "mute" or may_cut()
  end

  local function insert_now()
    if ticket.replaces then
      give_up()
      return reseparate.stems(proj, ticket, stems, paths, place.of(proj, ticket, item, nil), known)
    end
    local track = known.track
    if not ticket.item and not track and ticket.place ~= "new tracks" then
      return nil, GONE:format(text.shown(ticket.name)), "gone"
    end
    if known.has_job then
      give_up()
      return true
    end
    give_up = function() end -- from here on the project owns the sources, whatever happens
    return insert.stems(proj, ticket, stems, place_of(track), media, known)
  end

  local function step(over)
    if not stems then
      return nil, wrong
    elseif not project.is_open(proj) then
      return nil
    end
    local ok, err, what
    if not item then
      ok, err, what = look_up(over)
      if not ok then
        return ok, err, what
      end
    end
    if not paths then
      media_copy = media_copy or media_step(ticket, result, stems, proj)
      ok, err = media_copy(over)
      if not ok then
        return ok, err
      end
      paths = ok
    end
    if not media then
      if not peaks then
        peaks, give_up = peaks_step(result, paths)
      end
      ok, err = peaks(over)
      if not ok then
        return ok, err
      end
      media = ok
      ticket.origin = origin_of(ticket, stems, paths)
      return false
    end
    if not look_through(over) or not has_leave() then
      return false
    elseif not is_ready then
      is_ready = true
      return false, clock.ALONE
    end
    is_ready = false
    return insert_now()
  end
  return step, function()
    give_up()
  end
end

return delivery
