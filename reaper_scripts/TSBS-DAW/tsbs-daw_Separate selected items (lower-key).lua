-- @description tsbs-daw: separate selected items, preset lower-key
-- @noindex
-- @about
--   Bass and instruments two semitones lower for another voice; play them with the drums, which keep their pitch.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local use = assert(loadfile(folder .. "lib/use.lua"))()(folder .. "lib/")
local asking = use("asking")
asking.selected_items(asking.options({ preset = "lower-key" }))
