-- @description tsbs-daw: insert analysis of selected item
-- @noindex
-- @about
--   Finds tempo, beats, key and sections of every selected item, and puts them into the project: tempo map, markers,
--   regions, and a note on the item.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
require("analysis").ask(function(chosen)
  local selection = require("selection")
  selection.selected_items(selection.options({ preset = "none", analysis = chosen }))
end)
