-- Goes through the checks, one in a tick, and writes down what differs from what these scripts assume.
local require = ...
local files, json, tiny = require("files"), require("json"), require("selftest_project")
local GROUPS = { require("selftest_checks"), require("selftest_keeping") }

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
  for _, name in ipairs({ "report.json", "report.txt" }) do
    os.remove(files.join(made.folder, name))
  end
  files.write_new(files.join(made.folder, "report.txt"), table.concat(lines, "\n") .. "\n")
  files.write_new(
    files.join(made.folder, "report.json"),
    assert(json.encode({ failed = failed, lines = json.list(lines) }))
  )
  lines[#lines + 1] = ("The report is in %s; attach it to an issue."):format(files.join(made.folder, "report.txt"))
  lines[#lines + 1] = "The project tab of the self-test can be closed; nothing of it needs to be saved.\n"
  reaper.ShowConsoleMsg(table.concat(lines, "\n"))
end

function selftest.run()
  local ok, made = pcall(tiny.build)
  if not ok then
    reaper.ShowConsoleMsg("The self-test cannot begin: " .. tostring(made) .. "\n")
    return
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
