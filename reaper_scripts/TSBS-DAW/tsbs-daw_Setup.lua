-- @description tsbs-daw: setup
-- @noindex
-- @about
--   Registers every action in REAPER's action list, finds the program, runs its check of this machine, and says what
--   is missing.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
require("setup").run()
