-- The setup action: registers every action of this folder, so that REAPER need not be closed for it.
local require, folder = ...
local clock, files = require("clock"), require("files")

local setup = {}

-- Returns how many actions REAPER has taken into its list.
function setup.register()
  local names = {}
  for _, name in ipairs(files.list(files.scripts_folder(folder))) do
    names[#names + 1] = name:match("^tsbs%-daw_.*%.lua$")
  end
  local count = 0
  for index, name in ipairs(names) do
    count = count + (files.register(folder, name, index == #names) ~= 0 and 1 or 0)
  end
  return count
end

function setup.run()
  local count = setup.register()
  reaper.ShowConsoleMsg(("tsbs-daw: %d actions are in the action list.\n"):format(count))
  clock.no_undo_point()
end

return setup
