-- What a take plays, and how it can be had: as a portion of its file, or read through REAPER, or not at all.
local use = ...
local files, text = use("files"), use("text")

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

local function check(item, name)
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
  local take, name, media, root, rate = check(item)
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

-- The same for all that a track plays between two moments of the project.
function source.of_track(proj, track, from_s, length_s)
  local rate = math.floor(reaper.GetSetProjectInfo(proj, "PROJECT_SRATE", 0, false))
  for index = 0, reaper.CountTrackMediaItems(track) - 1 do
    local item = reaper.GetTrackMediaItem(track, index)
    local position = reaper.GetMediaItemInfo_Value(item, "D_POSITION")
    local ends = position + reaper.GetMediaItemInfo_Value(item, "D_LENGTH")
    if position < from_s + length_s and ends > from_s and reaper.GetMediaItemInfo_Value(item, "B_MUTE") == 0 then
      local take, err, _, _, item_rate = check(item)
      if not take then
        return nil, err
      end
      rate = math.max(rate, math.floor(item_rate))
    end
  end
  return { kind = "track", start_s = from_s, length_s = length_s, sample_rate = rate, channels = 2 }
end

return source
