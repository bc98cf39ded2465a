-- @description tsbs-daw: separate selected items, preset vocal-cleanup
-- @noindex
-- @about
--   A separated voice made usable - rumble removed, bleed between the lines reduced, level evened out a little.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
local selection = require("selection")
selection.selected_items(selection.options({ preset = "vocal-cleanup" }))
