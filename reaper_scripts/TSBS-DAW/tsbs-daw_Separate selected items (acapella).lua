-- @description tsbs-daw: separate selected items, preset acapella
-- @noindex
-- @about
--   The voice alone, dense and forward for a mash-up or a DJ set, with a little room to hide the cuts.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
local selection = require("selection")
selection.selected_items(selection.options({ preset = "acapella" }))
