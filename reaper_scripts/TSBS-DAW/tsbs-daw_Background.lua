-- @description tsbs-daw: background
-- @noindex
-- @about
--   Takes jobs to the daemon and brings stems back. The other actions start it; it ends when nothing is left to do.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local use = assert(loadfile(folder .. "lib/use.lua"))()(folder .. "lib/")
use("courier").run()
