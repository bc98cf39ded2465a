-- Goes through the checks, one in a tick, and writes down what differs from what these scripts assume.
local require = ...
local clock, files, tiny = require("clock"), require("files"), require("selftest_project")
local GROUPS = { require("selftest_reading"), require("selftest_checks"), require("selftest_keeping") }

local selftest = {}

local function report(made, found)
  local failed = 0
  local lines = { ("tsbs-daw self-test, REAPER %s, %s, %s"):format(reaper.GetAppVersion(), reaper.GetOS(), _VERSION) }
  for _, entry in ipairs(found) do
    failed = failed + (entry.ok and 0 or 1)
    lines[#lines + 1] = (entry.ok and "as assumed: " or "DIFFERENT:  ")
      .. entry.name
      .. (entry.ok and "" or ": " .. entry.what)
  end
  lines[#lines + 1] = failed == 0 and "Everything is as assumed." or failed .. " differ; please report this text."
  os.remove(files.join(made.folder, "report.txt"))
  files.write_new(files.join(made.folder, "report.txt"), table.concat(lines, "\n") .. "\n")
  lines[#lines + 1] = ("The report is in %s; attach it to an issue."):format(files.join(made.folder, "report.txt"))
  lines[#lines + 1] = "The project tab of the self-test can be closed; nothing in it needs to be saved.\n"
  reaper.ShowConsoleMsg(table.concat(lines, "\n"))
end

function selftest.run()
  clock.take_over()
  local ok, made = pcall(tiny.build)
  if not ok then
    reaper.ShowConsoleMsg("The self-test cannot start: " .. tostring(made) .. "\n")
    return clock.no_undo_point()
  end
  local checks, found, index = {}, {}, 0
  for _, group in ipairs(GROUPS) do
    table.move(group, 1, #group, #checks + 1, checks)
  end
  local function loop()
    index = index + 1
    local entry = checks[index]
    if not entry then
      return report(made, found)
    end
    local done, so, what = pcall(entry.body, made)
    found[index] = { name = entry.name, ok = done and so, what = tostring(done and what or so) }
    reaper.defer(loop)
  end
  reaper.defer(loop)
end

return selftest
