-- @description tsbs-daw: separate selected items, preset practice
-- @noindex
-- @about
--   The whole song four times, each with one part lowered by 12 dB - still there to check yourself against.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local use = assert(loadfile(folder .. "lib/use.lua"))()(folder .. "lib/")
local asking = use("asking")
asking.selected_items(asking.options({ preset = "practice" }))
