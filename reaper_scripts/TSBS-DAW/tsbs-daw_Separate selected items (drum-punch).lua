-- @description tsbs-daw: separate selected items, preset drum-punch
-- @noindex
-- @about
--   Drums with more weight and snap - heavily compressed drums blended under the untouched ones.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local use = assert(loadfile(folder .. "lib/use.lua"))()(folder .. "lib/")
local asking = use("asking")
asking.selected_items(asking.options({ preset = "drum-punch" }))
