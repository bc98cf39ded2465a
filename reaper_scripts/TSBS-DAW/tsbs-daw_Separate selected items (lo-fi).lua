-- @description tsbs-daw: separate selected items, preset lo-fi
-- @noindex
-- @about
--   The beat as if from an old sampler - dull, crunchy, slightly seasick. For loops to build on.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local use = assert(loadfile(folder .. "lib/use.lua"))()(folder .. "lib/")
local asking = use("asking")
asking.selected_items(asking.options({ preset = "lo-fi" }))
