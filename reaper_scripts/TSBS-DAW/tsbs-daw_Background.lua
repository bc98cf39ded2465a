-- @description tsbs-daw: background
-- @noindex
-- @about
--   Sends jobs to the daemon and brings stems back. The other actions start it; it exits when nothing is left to do.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
require("background").run()
