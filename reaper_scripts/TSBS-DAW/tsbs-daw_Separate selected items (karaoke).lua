-- @description tsbs-daw: separate selected items, preset karaoke
-- @noindex
-- @about
--   The song without its voice, and once more with a soft guide voice to sing along with.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local use = assert(loadfile(folder .. "lib/use.lua"))()(folder .. "lib/")
local asking = use("asking")
asking.selected_items(asking.options({ preset = "karaoke" }))
