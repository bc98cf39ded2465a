-- What a take plays, and how it can be had: as a portion of its file, or read through REAPER, or not at all.
local require = ...
local files, text = require("files"), require("text")

local source = {}

local FIXED_LANES = 2 -- of I_FREEMODE

local REFUSED = {
  MIDI = "is MIDI; render it to audio first",
  MIDIPOOL = "is MIDI; render it to audio first",
  EMPTY = "is empty; choose an item with audio",
  CLICK = "is a click source; render it to audio first",
  LTC = "is a timecode generator, which cannot be separated",
}

local function no(name, why)
  return nil, ("%s %s."):format(text.shown(name), why)
end

local function take_name(take, track)
  local name = reaper.GetTakeName(take)
  if name == "" then
    local _, track_name = reaper.GetSetMediaTrackInfo_String(track, "P_NAME", "", false)
    name = track_name
  end
  return name ~= "" and name or "item"
end

-- The source that a section, or several in each other, are cut out of.
function source.root_of(media)
  local parent = reaper.GetMediaSourceParent(media)
  while parent do
    media, parent = parent, reaper.GetMediaSourceParent(parent)
  end
  return media
end

local function take_value(take, name)
  return reaper.GetMediaItemTakeInfo_Value(take, name)
end

-- Whether nothing lies between the file and what is heard but the take's and the item's volume, pan and fades.
local function is_plain(item, take, media, file_s, offset_s, length_s)
  local loops = reaper.GetMediaItemInfo_Value(item, "B_LOOPSRC") ~= 0
  return reaper.GetMediaSourceType(media, "") == "WAVE"
    and take_value(take, "D_PLAYRATE") == 1
    and take_value(take, "D_PITCH") == 0
    and take_value(take, "I_CHANMODE") == 0
    and reaper.GetTakeNumStretchMarkers(take) == 0
    and reaper.CountTakeEnvelopes(take) == 0
    and offset_s >= 0
    and offset_s < file_s
    and not (loops and offset_s + length_s > file_s + 1e-6)
end

-- How many of a source's channels are heard: 1 in the channel modes 2 to 66, 2 from 67 on, otherwise all. They are the
-- first of those that an accessor gives, which must be asked for as many as the source has.
local function channels_of(take, in_source)
  local mode = math.floor(take_value(take, "I_CHANMODE"))
  if mode >= 2 and mode <= 66 then
    return 1
  end
  return mode >= 67 and math.min(2, in_source) or in_source
end

local function said_by(media)
  return {
    rate = math.floor(reaper.GetMediaSourceSampleRate(media)),
    length_s = (reaper.GetMediaSourceLength(media)),
    channels = math.min(reaper.GetMediaSourceNumChannels(media), 64),
  }
end

-- What a source says of itself: rate, length_s, channels. One whose file was missing when the project was opened says 0
-- from then on, also when the file is back: then they are the file's, and it is `stale`.
local function facts_of(media)
  local found = said_by(media)
  local path = reaper.GetMediaSourceFileName(media, "")
  if found.rate >= 1 or path == "" or not files.exists(path) then
    return found
  end
  local fresh = reaper.PCM_Source_CreateFromFile(path)
  if fresh then
    found = said_by(fresh)
    found.stale = true
    reaper.PCM_Source_Destroy(fresh)
  end
  return found
end

-- A portion of the file, in its own samples. lead_s: how much earlier than asked its first sample lies.
local function portion(media, facts, offset_s, length_s)
  local rate = facts.rate
  local first = offset_s * rate
  local start = math.floor(first + 1e-6)
  local in_file = math.floor(facts.length_s * rate + 0.5)
  local wanted = math.ceil((offset_s + length_s) * rate - 1e-6) - start
  return {
    kind = "file",
    path = reaper.GetMediaSourceFileName(media, ""),
    start_samples = start,
    length_samples = math.max(1, math.min(wanted, in_file - start)),
    lead_s = math.max(0, first - start) / rate,
  }
end

-- Whether an item is heard: where a track has fixed lanes (REAPER 7), those of the lanes that play are.
function source.plays(item, track)
  if reaper.GetMediaItemInfo_Value(item, "B_MUTE") ~= 0 then
    return false
  end
  return reaper.GetMediaTrackInfo_Value(track, "I_FREEMODE") ~= FIXED_LANES
    or reaper.GetMediaItemInfo_Value(item, "C_LANEPLAYS") > 0
end

-- Whether an item can be read: its take, name, media, the root of the media and its facts; or nil and a sentence.
function source.check(item, name)
  local take = reaper.GetActiveTake(item)
  local media = take and reaper.GetMediaItemTake_Source(take)
  if not media then
    return no(name or "The item", REFUSED.EMPTY)
  end
  name = name or take_name(take, reaper.GetMediaItemTrack(item))
  local root = source.root_of(media)
  local refusal = reaper.TakeIsMIDI(take) and REFUSED.MIDI or REFUSED[reaper.GetMediaSourceType(root, "")]
  if refusal then
    return no(name, refusal)
  end
  local path = reaper.GetMediaSourceFileName(root, "")
  local facts = facts_of(root)
  if path ~= "" and not files.exists(path) then
    return no(name, ("is offline: %s is missing; restore the file"):format(text.shown(path)))
  elseif facts.rate < 1 or facts.channels < 1 then
    return no(name, "has no audio; choose an item with audio")
  end
  return take, name, media, root, facts
end

-- nil and a sentence for what can be read from its file alone.
function source.stale(name)
  return no(name, "was offline when the project was opened; open the project again")
end

-- How to get the audio that an item plays in a portion of it, in seconds from its start.
--
-- Returns { kind = "file", path, start_samples, length_samples, lead_s }
--      or { kind = "take", start_s, length_s, sample_rate, channels, in_source }; with `fx`, { kind = "render", ... }
-- and the take and its name; or nil and a sentence.
function source.of_item(item, from_s, length_s, fx)
  local take, name, media, root, facts = source.check(item)
  if not take then
    return nil, name
  elseif fx and reaper.TakeFX_GetCount(take) > 0 then
    if facts.stale then
      return source.stale(name)
    end
    local channels = math.max(2, channels_of(take, facts.channels))
    return { kind = "render", start_s = from_s, length_s = length_s, channels = channels }, take, name
  end
  local offset_s = take_value(take, "D_STARTOFFS") + from_s
  if media == root and is_plain(item, take, media, facts.length_s, offset_s, length_s) then
    return portion(media, facts, offset_s, length_s), take, name
  elseif facts.stale then
    return source.stale(name)
  end
  local spec = { kind = "take", start_s = from_s, length_s = length_s, sample_rate = facts.rate }
  spec.channels, spec.in_source = channels_of(take, facts.channels), facts.channels
  return spec, take, name
end

-- The same for all that a track plays between two moments of the project; `rates` and `channels` are those of its items
-- there.
function source.of_track(proj, track, from_s, length_s, rates, channels)
  local rate = math.max(reaper.GetSetProjectInfo(proj, "PROJECT_SRATE", 0, false), table.unpack(rates))
  local carried = math.floor(reaper.GetMediaTrackInfo_Value(track, "I_NCHAN"))
  local heard = math.max(2, math.min(carried, math.max(table.unpack(channels))))
  return { kind = "track", start_s = from_s, length_s = length_s, sample_rate = math.floor(rate), channels = heard }
end

-- By what an item is known however it was cut: its file, its rate, and where in the project the file would begin.
-- loop_s: after how much time it repeats itself, if it does.
function source.trace(item)
  local take = reaper.GetActiveTake(item)
  local media = take and reaper.GetMediaItemTake_Source(take)
  if not media then
    return nil
  end
  local rate = take_value(take, "D_PLAYRATE")
  local loops = reaper.GetMediaItemInfo_Value(item, "B_LOOPSRC") ~= 0
  return {
    path = reaper.GetMediaSourceFileName(source.root_of(media), ""),
    rate = rate,
    zero_s = reaper.GetMediaItemInfo_Value(item, "D_POSITION") - take_value(take, "D_STARTOFFS") / rate,
    loop_s = loops and reaper.GetMediaSourceLength(media) / rate or nil,
  }
end

-- Whether two traces are of one item, or of two pieces of it; the first one was moved by `shift_s` since.
function source.is_piece(trace, other, shift_s)
  if trace.path ~= other.path or math.abs(trace.rate - other.rate) > 1e-9 then
    return false
  end
  local apart = trace.zero_s - shift_s - other.zero_s
  if trace.loop_s and trace.loop_s > 0 then
    apart = apart - trace.loop_s * math.floor(apart / trace.loop_s + 0.5)
  end
  return math.abs(apart) < 1e-6
end

return source
