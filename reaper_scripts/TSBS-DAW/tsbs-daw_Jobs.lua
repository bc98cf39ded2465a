-- @description tsbs-daw: jobs
-- @noindex
-- @about
--   What is under way, with progress, time left, cancel and retry, and why a job failed.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
require("jobs_window").run()
