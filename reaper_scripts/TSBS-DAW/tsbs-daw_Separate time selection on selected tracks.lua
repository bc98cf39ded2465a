-- @description tsbs-daw: separate time selection on selected tracks
-- @noindex
-- @about
--   Takes apart what the selected tracks play in the time selection.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local use = assert(loadfile(folder .. "lib/use.lua"))()(folder .. "lib/")
local asking = use("asking")
asking.time_selection(asking.options())
