-- @description tsbs-daw: jobs
-- @noindex
-- @about
--   Shows jobs with their progress and time left, and why a job failed; cancels and retries jobs.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
require("jobs_window").run()
