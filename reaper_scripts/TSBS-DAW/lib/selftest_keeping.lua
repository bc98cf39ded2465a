-- The rest of what these scripts assume: how they were installed, that an item can be cut, and that what they note
-- in a project is there when it is opened again. The last check opens the self-test's project anew.
local require, folder = ...
local files, insert, project, settings = require("files"), require("insert"), require("project"), require("settings")
local look_up = require("selftest_project").look_up

local checks = {}

local function check(name, body)
  checks[#checks + 1] = { name = name, body = body }
end

-- The id under which REAPER's list has a script, by its file's name.
local function id_in(list, name)
  for line in list:gmatch("[^\r\n]+") do
    if line:match("^SCR%s") and line:find(name, 1, true) then
      return line:match("^SCR%s+%d+%s+%d+%s+(%S+)")
    end
  end
  return nil
end

check("every action is in REAPER's list, reaper-kb.ini, and known by its id", function()
  local list = files.read(files.join(reaper.GetResourcePath(), "reaper-kb.ini")) or ""
  local missing = {}
  for _, name in ipairs(files.list((folder:gsub("[/\\]lib[/\\]$", "")))) do
    local id = id_in(list, name)
    if name:match("^tsbs%-daw_.*%.lua$") and (not id or reaper.NamedCommandLookup("_" .. id) == 0) then
      missing[#missing + 1] = name
    end
  end
  return #missing == 0, table.concat(missing, ", ") .. "; close REAPER, and run `tsbs-daw reaper install`"
end)

check("__startup.lua ran when REAPER began", function()
  return settings.word("startup") ~= "", "it did not; close REAPER, run `tsbs-daw reaper install`, and begin again"
end)

check("an item is cut in two, and undone", function(made)
  look_up(made)
  local guid, right = project.item_guid(made.item), nil
  assert(insert.undoable(made.proj, "tsbs-daw self-test: cut", function()
    right = assert(reaper.SplitMediaItem(made.item, 2.2), "no right piece")
  end))
  local found = ("%.3f %.3f | %.3f %.3f %.3f"):format(
    reaper.GetMediaItemInfo_Value(made.item, "D_POSITION"),
    reaper.GetMediaItemInfo_Value(made.item, "D_LENGTH"),
    reaper.GetMediaItemInfo_Value(right, "D_POSITION"),
    reaper.GetMediaItemInfo_Value(right, "D_LENGTH"),
    reaper.GetMediaItemTakeInfo_Value(reaper.GetActiveTake(right), "D_STARTOFFS")
  )
  local kept = project.item_guid(made.item) == guid and project.item_guid(right) ~= guid
  reaper.Undo_DoUndo2(made.proj)
  look_up(made)
  local whole = reaper.CountTrackMediaItems(made.track) == 1
  return found == "2.000 0.200 | 2.200 0.300 0.450" and kept and whole, found
end)

check("a change of the project is counted", function(made)
  local before = reaper.GetProjectStateChangeCount(made.proj)
  assert(insert.undoable(made.proj, "tsbs-daw self-test: note", function()
    reaper.GetSetMediaItemInfo_String(made.item, insert.JOB, "self-test", true)
  end))
  return reaper.GetProjectStateChangeCount(made.proj) ~= before, "it is not"
end)

check("the project plays at rate 1", function(made)
  local rate = reaper.Master_GetPlayRate(made.proj)
  return rate == 1, ("it plays at %s"):format(rate)
end)

check("what is noted on tracks, items and projects is there after saving and opening", function(made)
  local long = ('{"quoted": "\\u0027 and \\"", "list": [1, 2.5]} '):rep(60)
  assert(insert.undoable(made.proj, "tsbs-daw self-test: note", function()
    project.note(made.track, "selftest", long)
  end))
  local id, path = project.id(made.proj), files.join(made.folder, "kept.RPP")
  reaper.SelectProjectInstance(made.proj)
  reaper.Main_SaveProjectEx(made.proj, path, 0)
  reaper.Main_openProject("noprompt:" .. path)
  made.proj = project.current()
  look_up(made)
  local _, job = reaper.GetSetMediaItemInfo_String(made.item, insert.JOB, "", false)
  local track = project.note(made.track, "selftest")
  local lost = {}
  lost[#lost + 1] = track ~= long and ("the track's, of %d characters %d"):format(#long, #track) or nil
  lost[#lost + 1] = job ~= "self-test" and "the item's" or nil
  lost[#lost + 1] = project.find(id) ~= made.proj and "the project's" or nil
  return #lost == 0, "lost: " .. table.concat(lost, ", ")
end)

return checks
