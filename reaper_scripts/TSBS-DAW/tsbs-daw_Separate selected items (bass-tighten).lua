-- @description tsbs-daw: separate selected items, preset bass-tighten
-- @noindex
-- @about
--   An even, lean bass that is audible on small speakers - notes levelled, mud removed, a little grit on top.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
local selection = require("selection")
selection.selected_items(selection.options({ preset = "bass-tighten" }))
