-- What a take plays, and how it can be had: as a portion of its file, or read through REAPER, or not at all.
local require = ...
local files, text = require("files"), require("text")

local source = {}

local REFUSED = {
  MIDI = "is MIDI; render it to audio first",
  MIDIPOOL = "is MIDI; render it to audio first",
  VIDEO = "is video; extract its audio first",
  EMPTY = "is empty; choose an item with audio",
  CLICK = "is a click source; render it to audio first",
  LTC = "is a timecode generator, which has no parts",
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

local function root_of(media)
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
local function is_plain(item, take, media, offset_s, length_s)
  local file_s = reaper.GetMediaSourceLength(media)
  local loops = reaper.GetMediaItemInfo_Value(item, "B_LOOPSRC") ~= 0
  return reaper.GetMediaSourceType(media) == "WAVE"
    and take_value(take, "D_PLAYRATE") == 1
    and take_value(take, "D_PITCH") == 0
    and take_value(take, "I_CHANMODE") == 0
    and reaper.GetTakeNumStretchMarkers(take) == 0
    and reaper.CountTakeEnvelopes(take) == 0
    and offset_s >= 0
    and offset_s < file_s
    and not (loops and offset_s + length_s > file_s + 1e-6)
end

-- Channel modes 2 to 4 are mono; from 67 on, pairs of channels. Otherwise what the file has.
local function channels_of(take, media)
  local mode = math.floor(take_value(take, "I_CHANMODE"))
  if mode >= 2 and mode <= 66 then
    return 1
  end
  return mode >= 67 and 2 or math.max(1, math.min(reaper.GetMediaSourceNumChannels(media), 64))
end

-- A portion of the file, in its own samples. lead_s: how much earlier than asked its first sample lies.
local function portion(media, rate, offset_s, length_s)
  local first = offset_s * rate
  local start = math.floor(first + 1e-6)
  local in_file = math.floor(reaper.GetMediaSourceLength(media) * rate + 0.5)
  local wanted = math.ceil((offset_s + length_s) * rate - 1e-6) - start
  return {
    kind = "file",
    path = reaper.GetMediaSourceFileName(media),
    start_samples = start,
    length_samples = math.max(1, math.min(wanted, in_file - start)),
    lead_s = math.max(0, first - start) / rate,
  }
end

-- Whether an item can be read: its take, name, media, the media's root and that one's rate; or nil and a sentence.
function source.check(item, name)
  local take = reaper.GetActiveTake(item)
  local media = take and reaper.GetMediaItemTake_Source(take)
  if not media then
    return no(name or "The item", REFUSED.EMPTY)
  end
  name = name or take_name(take, reaper.GetMediaItemTrack(item))
  local root = root_of(media)
  local refusal = reaper.TakeIsMIDI(take) and REFUSED.MIDI or REFUSED[reaper.GetMediaSourceType(root)]
  if refusal then
    return no(name, refusal)
  end
  local path = reaper.GetMediaSourceFileName(root)
  local rate = reaper.GetMediaSourceSampleRate(root)
  if rate < 1 or path ~= "" and not files.exists(path) then
    return no(name, ("is offline: %s is not there; bring its file back"):format(text.shown(path)))
  end
  return take, name, media, root, rate
end

-- How to get the audio that an item plays in a portion of it, in seconds from its start.
--
-- Returns { kind = "file", path, start_samples, length_samples, lead_s }
--      or { kind = "take", start_s, length_s, sample_rate, channels }; with `fx`, { kind = "render", ... }
-- and the take and its name; or nil and a sentence.
function source.of_item(item, from_s, length_s, fx)
  local take, name, media, root, rate = source.check(item)
  if not take then
    return nil, name
  elseif fx and reaper.TakeFX_GetCount(take) > 0 then
    return { kind = "render", start_s = from_s, length_s = length_s }, take, name
  end
  local offset_s = take_value(take, "D_STARTOFFS") + from_s
  if media == root and is_plain(item, take, media, offset_s, length_s) then
    return portion(media, math.floor(rate), offset_s, length_s), take, name
  end
  local channels = channels_of(take, root)
  return { kind = "take", start_s = from_s, length_s = length_s, sample_rate = math.floor(rate), channels = channels },
    take,
    name
end

-- The same for all that a track plays between two moments of the project; `rates` are those of its items there.
function source.of_track(proj, from_s, length_s, rates)
  local rate = math.max(reaper.GetSetProjectInfo(proj, "PROJECT_SRATE", 0, false), table.unpack(rates))
  return { kind = "track", start_s = from_s, length_s = length_s, sample_rate = math.floor(rate), channels = 2 }
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
    path = reaper.GetMediaSourceFileName(root_of(media)),
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
