-- @description tsbs-daw: self-test
-- @noindex
-- @about
--   Opens a project tab of its own, tries every call that the actions make, and reports what differs from what they
--   assume. Changes nothing else.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
require("selftest").run()
