-- @description tsbs-daw: jobs
-- @noindex
-- @about
--   What is under way, with progress, time left, cancel and retry, and why a job failed.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local use = assert(loadfile(folder .. "lib/use.lua"))()(folder .. "lib/")
use("jobs_window").run()
