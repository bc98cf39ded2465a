-- @description tsbs-daw: separate selected items, preset acapella
-- @noindex
-- @about
--   The voice alone, dense and forward for a mash-up or a DJ set, with a little room to hide the cuts.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local use = assert(loadfile(folder .. "lib/use.lua"))()(folder .. "lib/")
local asking = use("asking")
asking.selected_items(asking.options({ preset = "acapella" }))
