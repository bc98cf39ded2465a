-- @description tsbs-daw: separate selected items, preset practice
-- @noindex
-- @about
--   The whole song four times, each with one part lowered by 12 dB - still there to check yourself against.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
local selection = require("selection")
selection.selected_items(selection.options({ preset = "practice" }))
