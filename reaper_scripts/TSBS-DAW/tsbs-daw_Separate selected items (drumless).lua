-- @description tsbs-daw: separate selected items, preset drumless
-- @noindex
-- @about
--   The song without drums, to play along with, and a quiet-drums version that keeps the time.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
local selection = require("selection")
selection.selected_items(selection.options({ preset = "drumless" }))
