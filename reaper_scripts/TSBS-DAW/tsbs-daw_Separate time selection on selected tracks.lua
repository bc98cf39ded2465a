-- @description tsbs-daw: separate time selection on selected tracks
-- @noindex
-- @about
--   Separates what the selected tracks play in the time selection.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
local selection = require("selection")
selection.time_selection(selection.options())
