-- Reads what a take or a track plays into a WAV file, a little in every tick.
--
-- An audio accessor gives nothing inside a coroutine, so this is a step function, called from a deferred one. It reads
-- what lies before the take's FX; rate, pitch, stretch markers, section, loop and channel mode are in it already.
-- The take's and the item's volume, and the take's envelopes but the pitch one, are not; the new items get them.
local require = ...
local text, wav = require("text"), require("wav")

local capture = {}

local SILENT = "REAPER returns only silence; "
  .. "if it sets media offline while in the background, bring it to the front and try again"
local VALUES, LEAST = 4096, 64 -- of all channels in one read: about half a millisecond; samples, however many channels

local function accessor_of(spec, object)
  if spec.kind == "track" then
    return reaper.CreateTrackAudioAccessor(object)
  end
  return reaper.CreateTakeAudioAccessor(object)
end

-- Of interleaved samples, the first `wanted` channels.
local function first_channels(values, channels, wanted, count)
  if wanted == channels then
    return values
  end
  local kept = {}
  for at = 0, count - 1 do
    for channel = 1, wanted do
      kept[at * wanted + channel] = values[at * channels + channel]
    end
  end
  return kept
end

-- Args:    spec: from `source`; object: the take or the track
--          look: called in every step; brings `spec` up to date, or says false: it is gone
-- Returns: a step function: true when done, nil and a sentence, or false; and one that gives everything back
function capture.to_file(spec, object, path, look)
  local accessor, file, buffer
  local done, total, has_sound = 0, 0, false
  local in_source = spec.in_source or spec.channels -- how many channels the accessor has to be asked for
  local block = math.max(LEAST, VALUES // in_source)

  local function release()
    if accessor then
      reaper.DestroyAudioAccessor(accessor)
      accessor = nil
    end
  end

  local function stop(why)
    release()
    if file then
      file:abandon()
      file = nil
    end
    return nil, ("Cannot read the audio into %s (%s)."):format(text.shown(path), why)
  end

  local function begin()
    local err
    total = math.max(1, math.ceil(spec.length_s * spec.sample_rate - 1e-6))
    accessor = accessor_of(spec, object)
    if not accessor then
      return stop("REAPER gives no access to it")
    end
    file, err = wav.create(path, spec.sample_rate, spec.channels, total)
    if not file then
      return stop(err)
    end
    buffer = reaper.new_array(block * in_source)
    return true
  end

  local function read_block()
    local count = math.min(block, total - done)
    buffer.clear() -- silence leaves it as it was
    local at_s = spec.start_s + done / spec.sample_rate
    local got = reaper.GetAudioAccessorSamples(accessor, spec.sample_rate, in_source, at_s, count, buffer)
    if got == nil or got < 0 then
      return stop("REAPER cannot read it; is its media online?")
    end
    has_sound = has_sound or got > 0
    local samples = first_channels(buffer.table(1, count * in_source), in_source, spec.channels, count)
    local ok, err = file:write(samples, count * spec.channels)
    if not ok then
      file = nil
      return stop(err)
    end
    done = done + count
    return true
  end

  local function step(over)
    if not look() then
      return stop("it is gone, or was cut in the meantime")
    elseif not accessor then
      local ok, err = begin()
      if not ok then
        return nil, err
      end
    elseif reaper.AudioAccessorStateChanged(accessor) then
      file:abandon() -- what was read belongs to what it was; begin again
      file, done, has_sound = nil, 0, false
      release()
      return false
    end
    repeat
      local ok, err = read_block()
      if not ok then
        return nil, err
      end
    until done >= total or over()
    if done < total then
      return false
    end
    if not has_sound then
      return stop(SILENT)
    end
    release()
    local closed, err = file:close()
    file = nil
    if not closed then
      return stop(err)
    end
    return true
  end

  return step, function()
    stop("given up")
  end
end

return capture
