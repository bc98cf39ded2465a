-- @description tsbs-daw: separate project regions on selected tracks
-- @noindex
-- @about
--   Separates what the selected tracks play in every region: one job for each region and track.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
local selection = require("selection")
selection.regions(selection.options())
