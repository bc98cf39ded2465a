-- @description tsbs-daw: separate region at edit cursor on selected tracks
-- @noindex
-- @about
--   Separates what the selected tracks play in the region that the edit cursor is in.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
local selection = require("selection")
selection.cursor_region(selection.options())
