-- @description tsbs-daw: re-separate in place...
-- @noindex
-- @about
--   New stems, by another preset, for tracks that tsbs-daw made; every edit of them is kept. Outputs that have no track
--   yet get one, muted.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local use = assert(loadfile(folder .. "lib/use.lua"))()(folder .. "lib/")
local asking = use("asking")
use("chooser").ask("tsbs-daw: re-separate in place", function()
  asking.again(asking.options())
end, "Tracks that are there keep every edit, and their mutes. An output without a track gets one, muted.")
