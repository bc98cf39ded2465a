-- @description tsbs-daw: separate selected items, preset lo-fi
-- @noindex
-- @about
--   The beat as if from an old sampler - dull, crunchy, slightly seasick. For loops to build on.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
local selection = require("selection")
selection.selected_items(selection.options({ preset = "lo-fi" }))
