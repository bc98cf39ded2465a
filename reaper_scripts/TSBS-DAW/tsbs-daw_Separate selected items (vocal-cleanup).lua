-- @description tsbs-daw: separate selected items, preset vocal-cleanup
-- @noindex
-- @about
--   A separated voice made usable - rumble out, bleed between the lines pushed down, level evened a little.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local use = assert(loadfile(folder .. "lib/use.lua"))()(folder .. "lib/")
local asking = use("asking")
asking.selected_items(asking.options({ preset = "vocal-cleanup" }))
