-- @description tsbs-daw: separate selected items, preset drum-punch
-- @noindex
-- @about
--   Drums with more weight and snap - heavily compressed drums blended under the untouched ones.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
local selection = require("selection")
selection.selected_items(selection.options({ preset = "drum-punch" }))
