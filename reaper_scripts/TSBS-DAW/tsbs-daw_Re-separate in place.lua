-- @description tsbs-daw: re-separate in place...
-- @noindex
-- @about
--   Replaces the stems on tracks that tsbs-daw made, using another preset; all edits are kept. Outputs that have no
--   track yet get one, muted.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local require = assert(loadfile(folder .. "lib/require.lua"))()(folder .. "lib/")
require("chooser").ask("tsbs-daw: re-separate in place", function()
  local selection = require("selection")
  selection.reseparate(selection.options())
end, "Tracks that are there keep every edit, and their mutes. An output without a track gets one, muted.")
