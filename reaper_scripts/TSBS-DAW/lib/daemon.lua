-- Starts the program that separates, when something waits for it and none is running. It ends by itself when nothing
-- has been asked of it for some minutes.
local require = ...
local settings = require("settings")

local daemon = {}

local START_S = 30 -- how long one may take to say that it is alive: it loads Python and the network

local function started_s_ago()
  local at = tonumber((settings.word("daemon_started")))
  return at and reaper.time_precise() - at or math.huge
end

-- Whether one was started a moment ago and has not said yet that it is alive.
function daemon.is_starting(spool)
  return started_s_ago() < START_S and not spool:alive()
end

-- Start one unless it is alive, or was started a moment ago. Returns whether one is there or on its way.
function daemon.ensure(installed, spool)
  if spool:alive() or started_s_ago() < START_S then
    return true
  elseif not installed.start then
    return false
  end
  return daemon.start(installed)
end

-- Start one, whatever was tried before. Returns whether the command could be run.
function daemon.start(installed)
  settings.word("daemon_started", ("%.3f"):format(reaper.time_precise()))
  return reaper.ExecProcess(installed.start, -2) ~= nil
end

return daemon
