-- The rest of what these scripts assume: how they were installed, that an item can be cut, and that what they note
-- in a project is there when it is opened again. The last check opens the self-test's project anew.
local require, folder = ...
local files, insert, project, settings = require("files"), require("insert"), require("project"), require("settings")
local analysis = require("analysis")
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

-- SHA-1 of a text, in hexadecimal digits.
local function sha1(content)
  local function turned(value, bits)
    return (value << bits | value >> (32 - bits)) & 0xFFFFFFFF
  end
  local state = { 0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0 }
  local padded = content .. "\x80" .. ("\0"):rep((55 - #content) % 64) .. (">I8"):pack(8 * #content)
  for block = 1, #padded, 64 do
    local words = { (">I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4"):unpack(padded, block) }
    for index = 17, 80 do
      words[index] = turned(words[index - 3] ~ words[index - 8] ~ words[index - 14] ~ words[index - 16], 1)
    end
    local a, b, c, d, e = table.unpack(state)
    for index = 1, 80 do
      local mixed, constant
      if index <= 20 then
        mixed, constant = (b & c) | (~b & d), 0x5A827999
      elseif index <= 40 then
        mixed, constant = b ~ c ~ d, 0x6ED9EBA1
      elseif index <= 60 then
        mixed, constant = (b & c) | (b & d) | (c & d), 0x8F1BBCDC
      else
        mixed, constant = b ~ c ~ d, 0xCA62C1D6
      end
      local sum = turned(a, 5) + (mixed & 0xFFFFFFFF) + e + constant + words[index]
      a, b, c, d, e = sum & 0xFFFFFFFF, a, turned(b, 30), c, d
    end
    for index, value in ipairs({ a, b, c, d, e }) do
      state[index] = (state[index] + value) & 0xFFFFFFFF
    end
  end
  return ("%08x%08x%08x%08x%08x"):format(table.unpack(state))
end

check("REAPER makes a script's id from its path in upper case", function()
  local scripts = files.plain(files.join(reaper.GetResourcePath(), "Scripts"))
  local own = files.plain(files.scripts_folder(folder))
  local path = own .. "/self-test id.lua"
  os.remove(path)
  assert(files.write_new(path, "reaper.defer(function() end)\n"))
  local command = files.register(folder, "self-test id.lua", true)
  local below = path:sub(1, #scripts + 1) == scripts .. "/" and path:sub(#scripts + 2) or path
  local id = "_RS" .. sha1(below:upper())
  local found = reaper.NamedCommandLookup(id)
  files.forget(folder, "self-test id.lua")
  os.remove(path)
  return command ~= 0 and found == command, ("%s is command %d, and the script is %d"):format(id, found, command)
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

check("a tempo marker between two bar lines stays where it is put, and begins a bar", function(made)
  local at_s, stays = 10.3, false
  assert(insert.undoable(made.proj, "tsbs-daw self-test: tempo", function()
    stays = analysis.add_tempo(made.proj, at_s, 97, 3)
  end))
  local index = reaper.CountTempoTimeSigMarkers(made.proj) - 1
  local _, found_s, _, _, bpm, beats = reaper.GetTempoTimeSigMarker(made.proj, index)
  return stays and beats == 3 and math.abs(bpm - 97) < 1e-6, ("%.5f s, %.2f BPM, %s beats"):format(found_s, bpm, beats)
end)

check("what is noted on tracks, items and projects is there after saving and opening", function(made)
  local long = ('{"quoted": "\\u0027 and \\"", "list": [1, 2.5]} '):rep(60)
  assert(insert.undoable(made.proj, "tsbs-daw self-test: note", function()
    project.note(made.track, "selftest", long)
  end))
  local reference, path = project.reference(made.proj), files.join(made.folder, "kept.RPP")
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
  lost[#lost + 1] = project.find(reference) ~= made.proj and "the project's" or nil
  return #lost == 0, "lost: " .. table.concat(lost, ", ")
end)

return checks
