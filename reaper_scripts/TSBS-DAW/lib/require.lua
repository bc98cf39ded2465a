-- Loads the modules of this folder, each once. A module is a file that is given `require` and returns a table.
--
--   json, text -> files -> settings -> clock, notices, protocol, spool, pending_jobs, project
--     -> source, capture, render -> recording, silencing -> insert, portions -> reseparate, requests -> delivery
--     -> background -> selection -> ui -> chooser, jobs_window
--
-- `require` would read the folder's name as a list of patterns; a folder may be called anything.
return function(folder)
  local loaded = {}
  local function require(name)
    if loaded[name] == nil then
      local chunk, err = loadfile(folder .. name .. ".lua")
      if not chunk then
        error(err, 0)
      end
      loaded[name] = chunk(require, folder)
    end
    return loaded[name]
  end
  return require
end
