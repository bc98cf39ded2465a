-- @description tsbs-daw: self-test
-- @noindex
-- @about
--   Opens a project tab of its own, goes through every call that the actions make, and says what differs from what
--   they assume. Changes nothing else.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local use = assert(loadfile(folder .. "lib/use.lua"))()(folder .. "lib/")
use("selftest").run()
