-- Loads the modules of this folder, each once. A module is a file that is given `use` and returns a table.
--
--   json, text -> files, clock -> settings -> protocol, spool, tickets -> project, source, capture, render
--     -> recording, silencing -> insert, portions -> again, orders -> delivery -> courier -> asking -> ui
--     -> chooser, jobs_window
--
-- `require` would read the folder's name as a list of patterns; a folder may be called anything.
return function(folder)
  local loaded = {}
  local function use(name)
    if loaded[name] == nil then
      local chunk, err = loadfile(folder .. name .. ".lua")
      if not chunk then
        error(err, 0)
      end
      loaded[name] = chunk(use, folder)
    end
    return loaded[name]
  end
  return use
end
