-- @description tsbs-daw: separate selected items, preset bass-tighten
-- @noindex
-- @about
--   A bass that is even, lean and heard on small speakers - notes levelled, mud out, a little grit above.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
local selection = require("selection")
selection.selected_items(selection.options({ preset = "bass-tighten" }))
