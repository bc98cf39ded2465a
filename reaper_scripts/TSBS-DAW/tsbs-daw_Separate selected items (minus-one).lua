-- @description tsbs-daw: separate selected items, preset minus-one
-- @noindex
-- @about
--   Four backing tracks, each with one part missing - for the one who plays it.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local use = assert(loadfile(folder .. "lib/use.lua"))()(folder .. "lib/")
local asking = use("asking")
asking.selected_items(asking.options({ preset = "minus-one" }))
