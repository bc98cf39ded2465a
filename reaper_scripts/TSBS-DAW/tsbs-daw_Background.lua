-- @description tsbs-daw: background
-- @author tsbs-daw
-- @version 0.1.0
-- @changelog First version.
-- @about
--   # tsbs-daw: background
--   Takes jobs to the daemon and brings stems back. The other actions start it; it ends when nothing is left to do.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local use = assert(loadfile(folder .. "lib/use.lua"))()(folder .. "lib/")
use("courier").run()
