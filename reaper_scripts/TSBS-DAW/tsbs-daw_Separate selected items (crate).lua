-- @description tsbs-daw: separate selected items, preset crate
-- @noindex
-- @about
--   A song prepared for a remix, with tempo, key, grid and level in its names, tags and sessions.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
local selection = require("selection")
selection.selected_items(selection.options({ preset = "crate" }))
