-- A ticket's way into the spool: its audio is had, as `source` said it can be, and the job is asked for.
local require = ...
local capture, files, project, render, text =
  require("capture"), require("files"), require("project"), require("render"), require("text")

local recording = {}

local AUDIO = "take.wav"

local function gone(ticket)
  return nil, ("%s is gone from its project, so it can no longer be read."):format(text.shown(ticket.name))
end

-- Ask for the job unless the spool has it already, from before a crash.
local function submit(spool, ticket, source)
  if not spool:progress(ticket.id) and spool:result(ticket.id) == nil then
    ticket.job.source = source
    local ok, err = spool:submit(ticket.job)
    if not ok then
      return nil, err
    end
  end
  ticket.stage = "submitted"
  return true
end

local function rendered(spool, ticket, proj, take)
  if not project.is_open(proj) then
    return nil
  elseif not reaper.ValidatePtr2(proj, take, "MediaItem_Take*") then
    return gone(ticket)
  end
  local item = reaper.GetMediaItemTake_Item(take)
  local path, later = spool:prepare_audio(ticket.id, AUDIO)
  if not path then
    return nil, later
  end
  local folder, name = path:gsub("/[^/]*$", ""), AUDIO:gsub("%.wav$", "")
  local ok, err = render.item(proj, item, folder, name, ticket.spec.channels or 2)
  if not ok then
    return nil, err
  end
  local media = reaper.PCM_Source_CreateFromFile(path)
  if not media then
    return nil, ("The render of %s did not make a file; try again."):format(text.shown(ticket.name))
  end
  local rate = math.floor(reaper.GetMediaSourceSampleRate(media))
  reaper.PCM_Source_Destroy(media)
  local start = math.floor(ticket.spec.start_s * rate + 1e-6)
  ticket.lead_s = ticket.spec.start_s - start / rate
  local length = math.max(1, math.ceil((ticket.spec.start_s + ticket.spec.length_s) * rate - 1e-6) - start)
  return submit(spool, ticket, { path = later, start_samples = start, length_samples = length })
end

local function object_of(ticket, proj, pause)
  if ticket.spec.kind == "track" then
    return project.track(proj, ticket.track, pause), "MediaTrack*"
  end
  return reaper.GetMediaItemTakeByGUID(proj, ticket.take), "MediaItem_Take*"
end

-- The ticket says what is read, so it changes with the take as long as that is not done. Returns whether what is wanted
-- is still in it.
local function follow(ticket, take)
  local item = reaper.GetMediaItemTake_Item(take)
  local length_s = reaper.GetMediaItemInfo_Value(item, "D_LENGTH")
  local offset_s = reaper.GetMediaItemTakeInfo_Value(take, "D_STARTOFFS")
  if ticket.partial then
    -- Its front may have been cut off: the portion begins earlier in what is left.
    local start_s = ticket.from_s - (offset_s - ticket.offset_s) / ticket.playrate
    ticket.spec.start_s = start_s
    local same = reaper.GetMediaItemTakeInfo_Value(take, "D_PLAYRATE") == ticket.playrate
    return same and start_s > -1e-6 and start_s + ticket.length_s < length_s + 1e-6
  end
  ticket.offset_s, ticket.length_s = offset_s, length_s
  ticket.playrate = reaper.GetMediaItemTakeInfo_Value(take, "D_PLAYRATE")
  ticket.spec.length_s = length_s
  return true
end

-- Returns a step function, and one that gives up. The step: true when the job is asked for; nil and a sentence; false.
-- Returns nil alone while the project is not open. pause: see `project.find`
function recording.of(spool, ticket, pause)
  local spec = ticket.spec
  if spec.kind == "file" then
    local source = { path = spec.path, start_samples = spec.start_samples, length_samples = spec.length_samples }
    return function()
      return submit(spool, ticket, source)
    end
  end
  local proj = project.find(ticket.project, ticket, pause)
  if not proj then
    return nil
  end
  local object, kind = object_of(ticket, proj, pause)
  if not project.is_open(proj) then
    return nil
  elseif not object then
    return function()
      return gone(ticket)
    end
  elseif spec.kind == "render" then
    return function()
      return rendered(spool, ticket, proj, object)
    end
  end
  local path, later = spool:prepare_audio(ticket.id, AUDIO)
  if not path then
    return function()
      return nil, later
    end
  end
  local step, give_up = capture.to_file(spec, object, path, function()
    local there = project.is_open(proj) and reaper.ValidatePtr2(proj, object, kind)
    return there and (spec.kind ~= "take" or follow(ticket, object))
  end)
  return function(_, late)
    local done, err = step(late)
    if not done then
      return done, err
    end
    return submit(spool, ticket, { path = later })
  end,
    give_up
end

-- The folder that a job's own folder shall appear in.
function recording.output(proj)
  return files.join(reaper.GetProjectPathEx(proj, ""), "stems")
end

return recording
