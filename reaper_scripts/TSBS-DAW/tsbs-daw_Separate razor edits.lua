-- @description tsbs-daw: separate razor edits
-- @noindex
-- @about
--   Separates what the razor edits of every track cover.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
local selection = require("selection")
selection.razor_edits(selection.options())
