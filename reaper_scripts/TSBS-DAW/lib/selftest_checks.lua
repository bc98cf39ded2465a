-- What these scripts assume of REAPER, one check for each: a name, and a function of the self-test's project that
-- returns whether it is so, and what was found.
local require = ...
local capture, delivery, envelopes = require("capture"), require("delivery"), require("envelopes")
local files, insert = require("files"), require("insert")
local project, render, sources, tiny =
  require("project"), require("render"), require("source"), require("selftest_project")

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

check("every function that is called exists", function()
  local missing = {}
  for _, name in ipairs(require("api_list")) do
    missing[#missing + 1] = not reaper.APIExists(name) and name or nil
  end
  return #missing == 0, table.concat(missing, ", ")
end)

check("a source tells its type, file, length, rate and channels", function(made)
  local media = reaper.GetMediaItemTake_Source(made.take)
  local length = reaper.GetMediaSourceLength(media)
  local found = ("%s %.3f s %d Hz %d channels %s"):format(
    reaper.GetMediaSourceType(media),
    length,
    reaper.GetMediaSourceSampleRate(media),
    reaper.GetMediaSourceNumChannels(media),
    tostring(reaper.GetMediaSourceParent(media))
  )
  local same_file = files.plain(reaper.GetMediaSourceFileName(media)) == files.plain(made.path)
  return found == "WAVE 1.000 s 48000 Hz 2 channels nil" and same_file, found
end)

check("a plain take is known as a portion of its file", function(made)
  local spec = sources.of_item(made.item, 0, 0.5, false)
  return spec and spec.kind == "file" and spec.start_samples == 12000 and spec.length_samples == 24000, "it is not"
end)

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

check("an accessor has the playrate in it already", function(made)
  return tiny.with(made, {}, { D_PLAYRATE = 2 }, function()
    return near(heard(made, 0.1), tiny.left(0.45))
  end)
end)

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

-- With a take volume envelope of one value, put into the item's chunk.
local function with_envelope(made, value, body)
  local block = { "<VOLENV", "ACT 1 -1", "VIS 1 1 1", "ARM 0", "DEFSHAPE 0 -1 -1", ("PT 0 %s 0"):format(value), ">" }
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
  return with_envelope(made, "0.5", function()
    local found = envelopes.of(made.take, 0)
    local count = reaper.CountTakeEnvelopes(made.take)
    return count == 1 and #found == 1 and found[1][1]:match("^%s*<VOLENV") ~= nil, ("%d, %d"):format(count, #found)
  end)
end)

check("an accessor does not have the take's volume envelope in it", function(made)
  return with_envelope(made, "0.5", function()
    return near(heard(made, 0.1), tiny.left(0.35))
  end)
end)

check("of a mono channel mode, the first of the source's channels is what is heard", function(made)
  return tiny.with(made, {}, { I_CHANMODE = 3 }, function()
    return near(heard(made, 0.1), tiny.left(0.35))
  end)
end)

check("a file of another name than ASCII is written, renamed, listed and removed", function(made)
  local name = "Jörg Иван 日本.txt"
  local path = files.join(made.folder, name)
  os.remove(path)
  local ok, why = files.write_new(path, "x")
  local listed = false
  for _, other in ipairs(files.list(made.folder)) do
    listed = listed or other == name
  end
  local removed, err = os.remove(path)
  return ok and listed and removed, tostring(why or err or (not listed and "it is not listed"))
end)

check("the screen tells how large it is", function()
  local left, top, right, bottom = reaper.my_getViewport(0, 0, 0, 0, 0, 0, 0, 0, true)
  return math.abs(right - left) > 300 and math.abs(bottom - top) > 200, ("%s x %s"):format(right - left, bottom - top)
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
  local accessor = reaper.CreateTrackAudioAccessor(made.track)
  local buffer = reaper.new_array(64)
  local got = reaper.GetAudioAccessorSamples(accessor, tiny.RATE, 2, 2.1, 32, buffer)
  reaper.DestroyAudioAccessor(accessor)
  local ok, what = near(buffer.table(1, 64)[1], tiny.left(0.35))
  return got == 1 and ok, what
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

check("items, takes, tracks and projects are found again", function(made)
  local id = project.id(made.proj)
  local guid = project.item_guid(made.item)
  local found = project.item_finder(made.proj, guid, project.take_guid(made.take))()
  local scanned = project.item_finder(made.proj, guid, nil)()
  local track = project.track(made.proj, project.track_guid(made.track))
  return found == made.item and scanned == made.item and track == made.track and project.find(id) == made.proj,
    "they are not"
end)

check("folders are listed anew", function(made)
  local path = files.join(made.folder, "listed.txt")
  os.remove(path)
  local before = #files.list(made.folder)
  assert(files.write_new(path, "x"))
  local after = #files.list(made.folder)
  os.remove(path)
  return after == before + 1, ("%d then %d"):format(before, after)
end)

check("the time selection and regions are read", function(made)
  reaper.GetSet_LoopTimeRange2(made.proj, true, false, 2.1, 2.3, false)
  local from_s, to_s = reaper.GetSet_LoopTimeRange2(made.proj, false, false, 0, 0, false)
  reaper.AddProjectMarker2(made.proj, true, 2, 2.5, "self-test", -1, 0)
  local more, is_region, start, ends, name = reaper.EnumProjectMarkers3(made.proj, 0)
  local ok = more > 0 and is_region and name == "self-test" and math.abs(ends - start - 0.5) < 1e-9
  return ok and math.abs(to_s - from_s - 0.2) < 1e-9, tostring(name)
end)

check("what is selected is counted", function(made)
  reaper.SelectAllMediaItems(made.proj, false)
  reaper.SetMediaItemSelected(made.item, true)
  local item = reaper.GetSelectedMediaItem(made.proj, 0)
  assert(insert.undoable(made.proj, "tsbs-daw self-test: select", function()
    reaper.SetMediaTrackInfo_Value(made.track, "I_SELECTED", 1)
  end))
  local track = reaper.CountSelectedTracks(made.proj) == 1 and reaper.GetSelectedTrack(made.proj, 0)
  return item == made.item and reaper.CountSelectedMediaItems(made.proj) == 1 and track == made.track, "it is not"
end)

check("peaks are built until nothing is left", function(made)
  local media = reaper.PCM_Source_CreateFromFile(made.path)
  local tries = reaper.PCM_Source_BuildPeaks(media, 0) ~= 0 and 1 or 0
  while tries > 0 and tries < 1000 and reaper.PCM_Source_BuildPeaks(media, 1) ~= 0 do
    tries = tries + 1
  end
  reaper.PCM_Source_BuildPeaks(media, 2)
  reaper.PCM_Source_Destroy(media)
  return tries < 1000, "there is no end of it"
end)

check("an item is rendered with every setting put back", function(made)
  local before = reaper.GetSetProjectInfo(made.proj, "RENDER_SETTINGS", 0, false)
  local path = files.join(made.folder, "rendered.wav")
  os.remove(path)
  local ok, err = render.item(made.proj, made.item, made.folder, "rendered")
  local after = reaper.GetSetProjectInfo(made.proj, "RENDER_SETTINGS", 0, false)
  local media = files.exists(path) and reaper.PCM_Source_CreateFromFile(path)
  local length = media and reaper.GetMediaSourceLength(media) or 0
  if media then
    reaper.PCM_Source_Destroy(media)
  end
  return ok and before == after and math.abs(length - 0.5) < 1e-3, err or ("%.5f s"):format(length)
end)

-- The delivery of a result that is the known file, twice, with the spool left out.
local function deliver(made, id)
  local ticket = { id = id, name = "self-test", group = "self-test", source = "mute", project = {}, job = {} }
  ticket.project.id, ticket.track = project.id(made.proj), project.track_guid(made.track)
  ticket.item, ticket.take = project.item_guid(made.item), project.take_guid(made.take)
  ticket.position_s, ticket.length_s, ticket.from_s = 2, 0.5, 0
  ticket.offset_s, ticket.playrate = 0.25, 1
  local stems = {}
  for index, name in ipairs({ "one", "two" }) do
    stems[index] = { name = name, path = made.path, color = "#102030" }
  end
  local result = { state = "done", stems = stems, samples = tiny.RATE, sample_rate = tiny.RATE, folder = made.folder }
  local step, done, err = delivery.of(ticket, result), nil, nil
  for _ = 1, 5000 do
    done, err = step(function()
      return false
    end)
    if done ~= false then
      break
    end
  end
  return done, err
end

check("stems are put below their track in one undo step, and once", function(made)
  local ok, err = deliver(made, "self-test-1")
  local names, depths = {}, {}
  for track in project.tracks(made.proj) do
    local _, name = reaper.GetSetMediaTrackInfo_String(track, "P_NAME", "", false)
    names[#names + 1] = name
    depths[#depths + 1] = ("%d"):format(math.floor(reaper.GetMediaTrackInfo_Value(track, "I_FOLDERDEPTH")))
  end
  local found = table.concat(names, ", ") .. " at " .. table.concat(depths, " ")
  local again = deliver(made, "self-test-1")
  local once = again and reaper.CountTracks(made.proj) == #names
  return ok and once and found == "self-test, self-test - stems, one, two at 0 1 0 -1", err or found
end)

check("one undo takes them away again", function(made)
  reaper.Undo_DoUndo2(made.proj)
  return reaper.CountTracks(made.proj) == 1, reaper.CountTracks(made.proj) .. " tracks"
end)

return checks
