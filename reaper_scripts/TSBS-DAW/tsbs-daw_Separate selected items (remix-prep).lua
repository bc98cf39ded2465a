-- @description tsbs-daw: separate selected items, preset remix-prep
-- @noindex
-- @about
--   Every part lightly cleaned and ready to rearrange, plus the instrumental.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
local selection = require("selection")
selection.selected_items(selection.options({ preset = "remix-prep" }))
