-- @description tsbs-daw: separate selected items, preset vocal-space
-- @noindex
-- @about
--   A hall and an echo of the voice, wet only, as returns to blend under the dry stems.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
local selection = require("selection")
selection.selected_items(selection.options({ preset = "vocal-space" }))
