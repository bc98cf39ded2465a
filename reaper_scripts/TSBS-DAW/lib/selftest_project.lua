-- The tiny project of the self-test: a new tab with one item whose samples are known.
local require = ...
local files, insert, wav = require("files"), require("insert"), require("wav")

local selftest_project = {}

local NEW_TAB = 41929 -- "New project tab (ignore default template)"
local RATE = 48000

selftest_project.RATE = RATE

-- What the file holds at a time in seconds: left and right differ, and no two moments are alike.
function selftest_project.left(at_s)
  return 0.1 + 0.5 * at_s
end

function selftest_project.right(at_s)
  return -0.1 - 0.25 * at_s
end

-- A second of stereo. left, right: the samples at a time in seconds
local function write_file(path, left, right)
  local file = assert(wav.create(path, RATE, 2, RATE))
  for block = 0, RATE - 1, 1000 do
    local values = {}
    for index = block, block + 999 do
      values[#values + 1] = left(index / RATE)
      values[#values + 1] = right(index / RATE)
    end
    assert(file:write(values, 2000))
  end
  assert(file:close())
end

local function tone(at_s)
  return 0.5 * math.sin(2 * math.pi * 220 * at_s)
end

-- A second of a tone in a file of its own. Returns its path.
function selftest_project.write_tone(folder)
  local path = files.join(folder, "tone.wav")
  write_file(path, tone, tone)
  return path
end

-- Write the file, and open the tab. Returns what was made. Raises where REAPER does not do what it is asked for.
function selftest_project.build()
  local folder = files.join(reaper.GetResourcePath(), "Data/TSBS-DAW/self-test")
  assert(files.make_folder(folder))
  local path = files.join(folder, "known.wav")
  write_file(path, selftest_project.left, selftest_project.right)
  reaper.Main_OnCommand(NEW_TAB, 0)
  local proj = reaper.EnumProjects(-1, "")
  assert(reaper.CountTracks(proj) == 0, "the new tab is not empty")
  local made = { proj = proj, folder = folder, path = path }
  assert(insert.undoable(proj, "tsbs-daw self-test: build", function()
    reaper.InsertTrackAtIndex(0, false)
    made.track = reaper.GetTrack(proj, 0)
    reaper.GetSetMediaTrackInfo_String(made.track, "P_NAME", "self-test", true)
    made.item = reaper.AddMediaItemToTrack(made.track)
    made.take = reaper.AddTakeToMediaItem(made.item)
    local media = assert(reaper.PCM_Source_CreateFromFile(path), "no source")
    reaper.SetMediaItemTake_Source(made.take, media)
    reaper.SetMediaItemInfo_Value(made.item, "D_POSITION", 2)
    reaper.SetMediaItemInfo_Value(made.item, "D_LENGTH", 0.5)
    reaper.SetMediaItemInfo_Value(made.item, "B_LOOPSRC", 0)
    reaper.SetMediaItemTakeInfo_Value(made.take, "D_STARTOFFS", 0.25)
  end))
  return made
end

-- Handles die with an undo, and a take's with its item's chunk.
function selftest_project.look_up(made)
  made.track = reaper.GetTrack(made.proj, 0)
  made.item = reaper.GetTrackMediaItem(made.track, 0)
  made.take = reaper.GetActiveTake(made.item)
end

-- Set values of the item or its take in an undo step, and call `body` with them set.
function selftest_project.with(made, item_values, take_values, body)
  local function set(values, getter, setter, object)
    local before = {}
    for name, value in pairs(values) do
      before[name] = getter(object, name)
      setter(object, name, value)
    end
    return before
  end
  local items, takes
  local get_item, set_item = reaper.GetMediaItemInfo_Value, reaper.SetMediaItemInfo_Value
  local get_take, set_take = reaper.GetMediaItemTakeInfo_Value, reaper.SetMediaItemTakeInfo_Value
  assert(insert.undoable(made.proj, "tsbs-daw self-test: change", function()
    items = set(item_values, get_item, set_item, made.item)
    takes = set(take_values, get_take, set_take, made.take)
  end))
  local ok, found, what = pcall(body)
  assert(insert.undoable(made.proj, "tsbs-daw self-test: change back", function()
    set(items, get_item, set_item, made.item)
    set(takes, get_take, set_take, made.take)
  end))
  assert(ok, found)
  return found, what
end

return selftest_project
