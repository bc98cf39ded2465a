-- What these scripts assume of what REAPER gives them to read: accessors of takes and tracks, and what is in them.
local require = ...
local capture, envelopes, files, insert = require("capture"), require("envelopes"), require("files"), require("insert")
local project, sources, tiny = require("project"), require("source"), require("selftest_project")

local checks = {}

local function check(name, body)
  checks[#checks + 1] = { name = name, body = body }
end

local function near(found, expected)
  return math.abs(found - expected) < 1e-3, ("%.5f instead of %.5f"):format(found, expected)
end

-- The first left sample that an accessor gives at a time in the item.
local function heard(made, at_s)
  local accessor = reaper.CreateTakeAudioAccessor(made.take)
  local buffer = reaper.new_array(64)
  buffer.clear(9)
  local got = reaper.GetAudioAccessorSamples(accessor, tiny.RATE, 2, at_s, 32, buffer)
  local values = buffer.table(1, 64)
  reaper.DestroyAudioAccessor(accessor)
  return values[1], values[2], got
end

check("an accessor counts from the item's start, and knows the start offset", function(made)
  local left, right = heard(made, 0.1)
  local ok, what = near(left, tiny.left(0.35))
  return ok and near(right, tiny.right(0.35)), what
end)

check("an accessor gives nothing inside a coroutine", function(made)
  local _, _, got = coroutine.wrap(function()
    return heard(made, 0.1)
  end)()
  return got == nil, "it gave " .. tostring(got) .. " (which does no harm)"
end)

-- Where the pitch is preserved the samples are stretched, which is only roughly the same curve.
for mode = 0, 1 do
  local what = mode == 0 and "not preserved" or "preserved"
  check(("an accessor has the playrate in it already where the pitch is %s"):format(what), function(made)
    return tiny.with(made, {}, { D_PLAYRATE = 2, B_PPITCH = mode }, function()
      local value, expected = heard(made, 0.1), tiny.left(0.45)
      local ok, found = near(value, expected)
      return ok or mode == 1 and math.abs(value - expected) < 0.05, found
    end)
  end)
end

for _, entry in ipairs({
  { "the take's volume", {}, { D_VOL = 0.5 } },
  { "the item's volume", { D_VOL = 0.5 }, {} },
  { "a fade", { D_FADEINLEN = 0.4, D_FADEINLEN_AUTO = -1 }, {} },
  { "the item's mute", { B_MUTE = 1 }, {} },
}) do
  check("an accessor does not have " .. entry[1] .. " in it", function(made)
    return tiny.with(made, entry[2], entry[3], function()
      return near(heard(made, 0.1), tiny.left(0.35))
    end)
  end)
end

local HALF = { { "0", "0.5" } }

-- With a take envelope, "<VOLENV" say, put into the item's chunk. points: of linear shape, { at, value }, ...
local function with_envelope(made, kind, points, body)
  local block = { kind, "ACT 1 -1", "VIS 1 1 1", "ARM 0", "DEFSHAPE 0 -1 -1" }
  for _, point in ipairs(points) do
    block[#block + 1] = ("PT %s %s 0"):format(point[1], point[2])
  end
  block[#block + 1] = ">"
  assert(insert.undoable(made.proj, "tsbs-daw self-test: envelope", function()
    envelopes.add(made.take, { block })
  end))
  tiny.look_up(made)
  local ok, found, what = pcall(body)
  reaper.Undo_DoUndo2(made.proj)
  tiny.look_up(made)
  assert(ok, found)
  return found, what
end

check("a take envelope can be put into an item's chunk, and is found there", function(made)
  return with_envelope(made, "<VOLENV", HALF, function()
    local found = envelopes.of(made.take, 0)
    local count = reaper.CountTakeEnvelopes(made.take)
    return count == 1 and #found == 1 and found[1][1]:match("^%s*<VOLENV") ~= nil, ("%d, %d"):format(count, #found)
  end)
end)

check("an accessor does not have the take's volume envelope in it", function(made)
  return with_envelope(made, "<VOLENV", HALF, function()
    return near(heard(made, 0.1), tiny.left(0.35))
  end)
end)

-- The first left sample that a track's accessor gives at a moment of the project.
local function heard_of_track(made, at_s)
  local accessor = reaper.CreateTrackAudioAccessor(made.track)
  local buffer = reaper.new_array(64)
  reaper.GetAudioAccessorSamples(accessor, tiny.RATE, 2, at_s, 32, buffer)
  reaper.DestroyAudioAccessor(accessor)
  return buffer.table(1, 64)[1]
end

check("a track's accessor has its items' volume envelopes in it", function(made)
  return with_envelope(made, "<VOLENV", HALF, function()
    return near(heard_of_track(made, 2.1), 0.5 * tiny.left(0.35))
  end)
end)

-- A volume that falls from 1 to 0.5 at a point of 0.4: 0.2 s behind the item's start at a playrate of 2.
local STEP = { { "0", "1" }, { "0.4", "1" }, { "0.402", "0.5" } }

check("points of a take's envelopes are at seconds from the item's start, times the playrate", function(made)
  return tiny.with(made, {}, { D_PLAYRATE = 2, B_PPITCH = 0 }, function()
    return with_envelope(made, "<VOLENV", STEP, function()
      local ok, found = near(heard_of_track(made, 2.15), tiny.left(0.55))
      local later, expected = heard_of_track(made, 2.3), 0.5 * tiny.left(0.85)
      return ok and near(later, expected), ("%s before, %.5f instead of %.5f behind it"):format(found, later, expected)
    end)
  end)
end)

check("what is cut off an item's front moves the points of its envelopes", function(made)
  return tiny.with(made, {}, { D_PLAYRATE = 2, B_PPITCH = 0 }, function()
    return with_envelope(made, "<VOLENV", STEP, function()
      local right
      assert(insert.undoable(made.proj, "tsbs-daw self-test: cut the front off", function()
        right = assert(reaper.SplitMediaItem(made.item, 2.1), "no right piece")
      end))
      local ok, found, what = pcall(function()
        local block = envelopes.of(reaper.GetActiveTake(right), 0)[1] or {}
        local at_s = tonumber((block[#block - 1] or ""):match("^PT (%S+)")) or -1
        return near(at_s, 0.101)
      end)
      reaper.Undo_DoUndo2(made.proj)
      tiny.look_up(made)
      assert(ok, found)
      return found, what
    end)
  end)
end)

-- How far what the take gives is from what it gave before, on average over some milliseconds. change: called between
local function difference(made, change)
  local function block()
    local accessor, buffer = reaper.CreateTakeAudioAccessor(made.take), reaper.new_array(1024)
    buffer.clear()
    reaper.GetAudioAccessorSamples(accessor, tiny.RATE, 2, 0.1, 512, buffer)
    reaper.DestroyAudioAccessor(accessor)
    return buffer.table(1, 1024)
  end
  local before = block()
  return change(function()
    local sum = 0
    for index, value in ipairs(block()) do
      sum = sum + math.abs(value - before[index])
    end
    return sum / #before > 0.01, ("%.5f"):format(sum / #before)
  end)
end

-- Let the take play a file of the same length.
local function play(made, path)
  assert(insert.undoable(made.proj, "tsbs-daw self-test: another file", function()
    local before, media = reaper.GetMediaItemTake_Source(made.take), reaper.PCM_Source_CreateFromFile(path)
    reaper.SetMediaItemTake_Source(made.take, (assert(media, "no source")))
    reaper.PCM_Source_Destroy(before)
  end))
end

-- With a tone as the take's media: another pitch would hardly change the samples of the known file.
local function with_tone(made, body)
  play(made, tiny.write_tone(made.folder))
  local ok, found, what = pcall(body)
  play(made, made.path)
  assert(ok, found)
  return found, what
end

check("an accessor has the take's pitch in it already", function(made)
  return with_tone(made, function()
    return difference(made, function(measure)
      return tiny.with(made, {}, { D_PITCH = 2 }, measure)
    end)
  end)
end)

check("an accessor has the take's pitch envelope in it already", function(made)
  return with_tone(made, function()
    return difference(made, function(measure)
      return with_envelope(made, "<PITCHENV", { { "0", "2" } }, measure)
    end)
  end)
end)

check("a track's accessor has its items' take effects in it", function(made)
  local number
  assert(insert.undoable(made.proj, "tsbs-daw self-test: take effect", function()
    number = reaper.TakeFX_AddByName(made.take, "JS: utility/volume", 1)
    reaper.TakeFX_SetParam(made.take, math.max(number, 0), 0, -6)
  end))
  local value, plain = heard_of_track(made, 2.1), heard(made, 0.1)
  reaper.Undo_DoUndo2(made.proj)
  tiny.look_up(made)
  local expected = 10 ^ (-6 / 20) * tiny.left(0.35)
  local found = ("the track gives %.5f, the take %.5f"):format(value, plain)
  return number >= 0 and near(value, expected) and near(plain, tiny.left(0.35)), found
end)

check("a track's accessor has its items' volume in it", function(made)
  return tiny.with(made, { D_VOL = 0.5 }, {}, function()
    return near(heard_of_track(made, 2.1), 0.5 * tiny.left(0.35))
  end)
end)

check("a take is found again by its GUID after an undo", function(made)
  local guid = project.take_guid(made.take)
  assert(insert.undoable(made.proj, "tsbs-daw self-test: undone", function()
    reaper.SetMediaItemTakeInfo_Value(made.take, "D_VOL", 0.25)
  end))
  reaper.Undo_DoUndo2(made.proj)
  tiny.look_up(made)
  local take = reaper.GetMediaItemTakeByGUID(made.proj, guid)
  local back = reaper.GetMediaItemTakeInfo_Value(made.take, "D_VOL")
  return take ~= nil and take == made.take and back == 1, ("%s, volume %.2f"):format(take and "found" or "lost", back)
end)

check("the sound of a VIDEO source is read by an accessor", function(made)
  local _, chunk = reaper.GetItemStateChunk(made.item, "", false)
  assert(insert.undoable(made.proj, "tsbs-daw self-test: video", function()
    reaper.SetItemStateChunk(made.item, (chunk:gsub("<SOURCE WAVE", "<SOURCE VIDEO")), false)
  end))
  tiny.look_up(made)
  local ok, found, what = pcall(function()
    local media = reaper.GetMediaItemTake_Source(made.take)
    local spec, why = sources.of_item(made.item, 0, 0.5, false)
    local kind = reaper.GetMediaSourceType(media, "")
    local value = spec and heard(made, 0.1) or 0
    local read = kind == "VIDEO" and spec and spec.kind == "take" and near(value, tiny.left(0.35))
    return read, ("%s at %.0f Hz, %.5f %s"):format(kind, reaper.GetMediaSourceSampleRate(media), value, why or "")
  end)
  reaper.Undo_DoUndo2(made.proj)
  tiny.look_up(made)
  assert(ok, found)
  return found, what
end)

check("of a mono channel mode, the first of the source's channels is what is heard", function(made)
  return tiny.with(made, {}, { I_CHANMODE = 3 }, function()
    return near(heard(made, 0.1), tiny.left(0.35))
  end)
end)

check("an accessor notices a change", function(made)
  local accessor = reaper.CreateTakeAudioAccessor(made.take)
  local found = tiny.with(made, {}, { D_STARTOFFS = 0.3 }, function()
    return reaper.AudioAccessorStateChanged(accessor)
  end)
  reaper.DestroyAudioAccessor(accessor)
  return found, "it did not"
end)

check("what a track plays can be read", function(made)
  return near(heard_of_track(made, 2.1), tiny.left(0.35))
end)

check("an item is read into a file of its length", function(made)
  local spec = { kind = "take", start_s = 0, length_s = 0.5, sample_rate = tiny.RATE, channels = 2 }
  local path = files.join(made.folder, "read.wav")
  os.remove(path)
  local step = capture.to_file(spec, made.take, path, function()
    return reaper.ValidatePtr2(made.proj, made.take, "MediaItem_Take*")
  end)
  local done, err
  repeat
    done, err = step(function()
      return false
    end)
  until done ~= false
  local media = done and reaper.PCM_Source_CreateFromFile(path)
  local length = media and reaper.GetMediaSourceLength(media) or 0
  if media then
    reaper.PCM_Source_Destroy(media)
  end
  return done and math.abs(length - 0.5) < 1e-6, err or ("%.5f s"):format(length)
end)

return checks
