-- @description tsbs-daw: stems of items, time selections and regions
-- @author tsbs-daw
-- @version 0.1.0
-- @changelog First version.
-- @about
--   # tsbs-daw: separate selected items
--   Separates every selected item with the last used preset, and puts its stems below its track.
-- @provides
--   [main] tsbs-daw_*.lua
--   [nomain] lib/*.lua
--   [data] toolbar_icons/**/*.png

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
local selection = require("selection")
selection.selected_items(selection.options())
