-- @description tsbs-daw: separate with preset...
-- @noindex
-- @about
--   Asks for a preset, the stems, whether items, the time selection or regions are meant, and what becomes of the
--   source; remembers it, and separates them.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local use = assert(loadfile(folder .. "lib/use.lua"))()(folder .. "lib/")
local asking = use("asking")
use("chooser").ask("tsbs-daw: separate with preset", function()
  asking[use("settings").choice("what")](asking.options())
end)
