-- @description tsbs-daw: re-separate in place...
-- @author tsbs-daw
-- @version 0.1.0
-- @changelog First version.
-- @about
--   # tsbs-daw: re-separate in place...
--   New stems, by another preset, for tracks that tsbs-daw made; every edit of them is kept.

local folder = (({ reaper.get_action_context() })[2]):match("^(.*[/\\])")
local use = assert(loadfile(folder .. "lib/use.lua"))()(folder .. "lib/")
local asking = use("asking")
use("chooser").ask("tsbs-daw: re-separate in place", function()
  asking.again(asking.options())
end)
