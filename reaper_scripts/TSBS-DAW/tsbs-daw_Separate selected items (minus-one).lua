-- @description tsbs-daw: separate selected items, preset minus-one
-- @noindex
-- @about
--   Four backing tracks, each with one part missing - for whoever plays that part.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
local selection = require("selection")
selection.selected_items(selection.options({ preset = "minus-one" }))
