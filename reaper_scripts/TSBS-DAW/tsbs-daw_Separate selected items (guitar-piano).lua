-- @description tsbs-daw: separate selected items, preset guitar-piano
-- @noindex
-- @about
--   Guitar and piano separated from the other instruments, with the model htdemucs_6s.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
local selection = require("selection")
selection.selected_items(selection.options({ preset = "guitar-piano" }))
