-- @description tsbs-daw: separate selected items, preset bass-tighten
-- @noindex
-- @about
--   A bass that is even, lean and heard on small speakers - notes levelled, mud out, a little grit above.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local use = assert(loadfile(folder .. "lib/use.lua"))()(folder .. "lib/")
local asking = use("asking")
asking.selected_items(asking.options({ preset = "bass-tighten" }))
