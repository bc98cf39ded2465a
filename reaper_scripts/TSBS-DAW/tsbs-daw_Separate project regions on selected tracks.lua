-- @description tsbs-daw: separate project regions on selected tracks
-- @noindex
-- @about
--   Takes apart what the selected tracks play in every region: one job for each region and track.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local use = assert(loadfile(folder .. "lib/use.lua"))()(folder .. "lib/")
local asking = use("asking")
asking.regions(asking.options())
