-- @description tsbs-daw: separate selected items, preset instrumental
-- @noindex
-- @about
--   The song without its voice, at its own level.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
local selection = require("selection")
selection.selected_items(selection.options({ preset = "instrumental" }))
