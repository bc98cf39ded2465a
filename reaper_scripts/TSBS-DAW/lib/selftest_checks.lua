-- What these scripts assume of REAPER, one check for each: a name, and a function of the self-test's project that
-- returns whether it is so, and what was found.
local require = ...
local delivery, files, insert = require("delivery"), require("files"), require("insert")
local project, render, sources, tiny =
  require("project"), require("render"), require("source"), require("selftest_project")

local checks = {}

local function check(name, body)
  checks[#checks + 1] = { name = name, body = body }
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
    reaper.GetMediaSourceType(media, ""),
    length,
    reaper.GetMediaSourceSampleRate(media),
    reaper.GetMediaSourceNumChannels(media),
    tostring(reaper.GetMediaSourceParent(media))
  )
  local same_file = files.plain(reaper.GetMediaSourceFileName(media, "")) == files.plain(made.path)
  return found == "WAVE 1.000 s 48000 Hz 2 channels nil" and same_file, found
end)

check("a plain take is known as a portion of its file", function(made)
  local spec = sources.of_item(made.item, 0, 0.5, false)
  return spec and spec.kind == "file" and spec.start_samples == 12000 and spec.length_samples == 24000, "it is not"
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

check("items, takes, tracks and projects are found again", function(made)
  local reference = project.reference(made.proj)
  local guid = project.item_guid(made.item)
  local found = project.item_finder(made.proj, guid, project.take_guid(made.take))()
  local scanned = project.item_finder(made.proj, guid, nil)()
  local track = project.track(made.proj, project.track_guid(made.track))
  return found == made.item and scanned == made.item and track == made.track and project.find(reference) == made.proj,
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
  local ok, err = render.item(made.proj, made.item, made.folder, "rendered", 2)
  local after = reaper.GetSetProjectInfo(made.proj, "RENDER_SETTINGS", 0, false)
  local media = files.exists(path) and reaper.PCM_Source_CreateFromFile(path)
  local length = media and reaper.GetMediaSourceLength(media) or 0
  if media then
    reaper.PCM_Source_Destroy(media)
  end
  return ok and before == after and math.abs(length - 0.5) < 1e-3, err or ("%.5f s"):format(length)
end)

check("a render with a second format makes one file, and keeps the setting", function(made)
  local second = "bDNwbUABAAAAAAAA" -- MP3
  local _, before = reaper.GetSetProjectInfo_String(made.proj, "RENDER_FORMAT2", "", false)
  reaper.GetSetProjectInfo_String(made.proj, "RENDER_FORMAT2", second, true)
  local _, set = reaper.GetSetProjectInfo_String(made.proj, "RENDER_FORMAT2", "", false)
  for _, ending in ipairs({ ".wav", ".mp3" }) do
    os.remove(files.join(made.folder, "second" .. ending))
  end
  local ok, err = render.item(made.proj, made.item, made.folder, "second", 2)
  local _, after = reaper.GetSetProjectInfo_String(made.proj, "RENDER_FORMAT2", "", false)
  reaper.GetSetProjectInfo_String(made.proj, "RENDER_FORMAT2", before, true)
  local found = {}
  for _, name in ipairs(files.list(made.folder)) do
    found[#found + 1] = name:match("^second.*") and name or nil
  end
  local one = #found == 1 and found[1] == "second.wav"
  return ok and one and set == after, err or table.concat(found, ", ") .. (set == after and "" or "; it was changed")
end)

-- The delivery of a result that is the known file, twice, with the spool left out.
local function deliver(made, id, layout)
  local ticket = { id = id, name = "self-test", group = "self-test", source = "mute", job = {}, layout = layout }
  ticket.project, ticket.track = project.reference(made.proj), project.track_guid(made.track)
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
  tiny.look_up(made)
  return reaper.CountTracks(made.proj) == 1, reaper.CountTracks(made.proj) .. " tracks"
end)

check("stems become children of their track, and the panel shows them below it", function(made)
  local done, err = deliver(made, "self-test-2", "children")
  local found, well, below = {}, done, -math.huge
  for track in project.tracks(made.proj) do
    local top, parent = reaper.GetMediaTrackInfo_Value(track, "I_TCPY"), reaper.GetParentTrack(track)
    well = well and top > below and (parent == nil) == (track == made.track)
    found[#found + 1], below = ("%d at %.0f"):format(parent and 1 or 0, top), top
  end
  reaper.Undo_DoUndo2(made.proj)
  tiny.look_up(made)
  return well and #found == 3, err or table.concat(found, ", ")
end)

-- What is copied from a source to its stems, with a value for each that is not usual.
local COPIED = {
  { "Item", "D_VOL", 0.5 },
  { "Item", "C_BEATATTACHMODE", 1 },
  { "Item", "C_AUTOSTRETCH", 1 },
  { "Item", "D_FADEINLEN", 0.125 },
  { "Item", "C_FADEINSHAPE", 2 },
  { "Item", "D_SNAPOFFSET", 0.125 },
  { "Take", "D_VOL", 0.5 },
  { "Take", "D_PAN", -0.25 },
  { "Track", "D_VOL", 0.5 },
  { "Track", "D_PAN", -0.25 },
  { "Track", "I_PANMODE", 5 },
  { "Track", "D_WIDTH", 0.5 },
  { "Track", "D_PANLAW", 1 },
  { "Track", "B_PHASE", 1 },
  { "Track", "I_NCHAN", 6 },
  { "Track", "C_BEATATTACHMODE", 1 },
  { "Track", "D_PLAY_OFFSET", 0.125 },
}

check("every value that stems get from their source is there once it was set", function(made)
  local objects = {
    Item = { made.item, reaper.GetMediaItemInfo_Value, reaper.SetMediaItemInfo_Value },
    Take = { made.take, reaper.GetMediaItemTakeInfo_Value, reaper.SetMediaItemTakeInfo_Value },
    Track = { made.track, reaper.GetMediaTrackInfo_Value, reaper.SetMediaTrackInfo_Value },
  }
  local lost = {}
  assert(insert.undoable(made.proj, "tsbs-daw self-test: values", function()
    for _, entry in ipairs(COPIED) do
      local object, get, set = table.unpack(objects[entry[1]])
      set(object, entry[2], entry[3])
      local found = get(object, entry[2])
      if math.abs(found - entry[3]) > 1e-6 then
        lost[#lost + 1] = ("%s of %s is %s"):format(entry[2], entry[1], found)
      end
    end
  end))
  reaper.Undo_DoUndo2(made.proj)
  tiny.look_up(made)
  return #lost == 0, table.concat(lost, ", ")
end)

return checks
