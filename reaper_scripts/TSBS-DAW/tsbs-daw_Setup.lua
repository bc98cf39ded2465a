-- @description tsbs-daw: setup
-- @noindex
-- @about
--   Registers every action of this folder in REAPER's action list.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
require("setup").run()
