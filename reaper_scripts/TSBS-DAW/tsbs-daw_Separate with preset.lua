-- @description tsbs-daw: separate selected items with preset...
-- @noindex
-- @about
--   Asks for a preset, the stems and what becomes of the source, remembers it, and separates the selected items.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local use = assert(loadfile(folder .. "lib/use.lua"))()(folder .. "lib/")
local asking = use("asking")
use("chooser").ask("tsbs-daw: separate with preset", function()
  asking.selected_items(asking.options())
end)
