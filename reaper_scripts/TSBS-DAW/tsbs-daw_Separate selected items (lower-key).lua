-- @description tsbs-daw: separate selected items, preset lower-key
-- @noindex
-- @about
--   Bass and instruments two semitones lower for another voice; play them with the drums, which keep their pitch.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
local selection = require("selection")
selection.selected_items(selection.options({ preset = "lower-key" }))
