-- @description tsbs-daw: separate selected items, preset drumless
-- @noindex
-- @about
--   The song without drums, to play along with, and a quiet-drums version that keeps the time.
-- Made by `tsbs-daw reaper actions`.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local use = assert(loadfile(folder .. "lib/use.lua"))()(folder .. "lib/")
local asking = use("asking")
asking.selected_items(asking.options({ preset = "drumless" }))
