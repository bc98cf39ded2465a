-- @description tsbs-daw: separate with preset...
-- @noindex
-- @about
--   Asks for a preset, the stems, what to separate (items, the time selection or regions) and what to do with the
--   source; remembers the choices, and separates.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
require("chooser").ask("tsbs-daw: separate with preset", function()
  local selection = require("selection")
  selection[require("settings").choice("what")](selection.options())
end)
