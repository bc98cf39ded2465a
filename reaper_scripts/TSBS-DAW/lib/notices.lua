-- What is shown while the user works at something else: by the toolbar button of the window of jobs, and in REAPER's
-- help line. Neither takes the keys.
local require, folder = ...
local files, settings = require("files"), require("settings")

local notices = {}

local FILE = "tsbs-daw_Jobs.lua"
local ALIVE_S = 3.0

-- Whether the window of jobs is open.
local function alive()
  local beat = tonumber((settings.word("jobs_window")))
  return beat ~= nil and math.abs(reaper.time_precise() - beat) < ALIVE_S
end

-- Light the toolbar button of the jobs window, or let it go out: it is lit while jobs are in progress, and when there
-- is something to say.
function notices.light(is_lit)
  local command = files.register(folder, FILE, false)
  reaper.SetToggleCommandState(0, command, is_lit and 1 or 0)
  reaper.RefreshToolbar2(0, command)
end

-- Say that the window has something to say, without taking the keys from what the user is doing: by its lit button, and
-- in REAPER's help line.
function notices.notify(sentence)
  if not alive() then
    settings.word("news", "1")
    notices.light(true)
    reaper.Help_Set(("tsbs-daw: %s Run tsbs-daw: jobs for more."):format(sentence), true)
  end
end

-- Show how far the jobs are where it takes no keys: by the button, and in the help line, where nothing else is said.
-- count: how many are under way; line: about one of them, or nil
function notices.show_progress(count, line)
  local has_news = settings.word("news") ~= ""
  local shown = ("%d %s"):format(count, line or "")
  if shown == settings.word("progress") then
    return
  end
  settings.word("progress", shown)
  notices.light(count > 0 or has_news)
  if not has_news then
    local more = count > 1 and (", and %d more"):format(count - 1) or ""
    reaper.Help_Set(line and ("tsbs-daw: %s%s"):format(line, more) or "", true)
  end
end

-- Open the window of jobs as a script of its own, unless it is open.
function notices.show_jobs()
  if not alive() then
    files.run_script(folder, FILE)
  end
end

return notices
