-- Files and folders. Paths are UTF-8; REAPER takes "/" on every system. Nothing here raises: value, or nil and why.
local require = ...
local text = require("text")

local files = {}

local COPY_BYTES = 128 * 1024
local NAMES = 16 -- of a folder, between two pauses

function files.join(folder, name)
  return (folder:gsub("[/\\]+$", "")) .. "/" .. name
end

function files.name(path)
  return path:match("([^/\\]*)$")
end

-- The same path in one spelling, to compare.
function files.plain(path)
  return (path:gsub("\\", "/"):gsub("/+$", ""))
end

function files.exists(path)
  local file = io.open(path, "rb")
  if file then
    file:close()
  end
  return file ~= nil
end

function files.read(path)
  local file, err = io.open(path, "rb")
  if not file then
    return nil, err
  end
  local content = file:read("a")
  file:close()
  return content or nil, "it cannot be read"
end

function files.make_folder(path)
  reaper.RecursiveCreateDirectory(path, 0)
  local probe = files.join(path, ".tsbs-daw")
  local file = io.open(probe, "wb")
  if not file then
    return nil, ("Cannot write to %s; choose another folder, or free some space."):format(text.shown(path))
  end
  file:close()
  os.remove(probe)
  return true
end

-- Write a file that appears whole. Its name must be free: Windows does not rename over a file.
function files.write_new(path, content)
  local temporary = path .. ".tmp"
  local file, err = io.open(temporary, "wb")
  if not file then
    return nil, err
  end
  local written = file:write(content) and file:flush()
  if not file:close() or not written then
    os.remove(temporary)
    return nil, "the disk is full"
  end
  return os.rename(temporary, path)
end

-- The names of the files in a folder, read anew. pause: called now and then, or nil; what changes meanwhile may be
-- missing, or be there twice.
function files.list(folder, pause)
  local found = {}
  reaper.EnumerateFiles(folder, -1)
  local name = reaper.EnumerateFiles(folder, 0)
  while name do
    found[#found + 1] = name
    if pause and #found % NAMES == 0 then
      pause()
    end
    name = reaper.EnumerateFiles(folder, #found)
  end
  return found
end

-- Copy in steps, so that nothing waits for a disk. Returns a step function: true when done, nil and why, or false.
function files.copier(from, to)
  local input, output
  local temporary = to .. ".tmp"
  local function stop(err)
    if input then
      input:close()
    end
    if output then
      output:close()
      os.remove(temporary)
    end
    return nil, ("%s cannot be copied to %s (%s)."):format(text.shown(from), text.shown(to), err)
  end
  return function(over)
    local err
    if not input then
      input, err = io.open(from, "rb")
      output = input and io.open(temporary, "wb")
      if not output then
        return stop(err or "the folder cannot be written to")
      end
    end
    repeat
      local block = input:read(COPY_BYTES)
      if not block then
        local closed = output:close()
        output = nil
        if not closed or not (files.exists(to) or os.rename(temporary, to)) then
          os.remove(temporary)
          return stop("the disk is full")
        end
        input:close()
        return true
      elseif not output:write(block) then
        return stop("the disk is full")
      end
    until over()
    return false
  end
end

-- The folder of the actions, from that of the modules.
function files.scripts_folder(lib)
  return (lib:gsub("[/\\]lib[/\\]$", ""))
end

-- REAPER knows scripts by their path, so it is spelt as REAPER spells it.
local function script_path(lib, name)
  return ((files.scripts_folder(lib) .. "/" .. name):gsub("[/\\]", package.config:sub(1, 1)))
end

-- The command id of another script of this installation.
-- commit: write the action list; false for all but the last of several.
function files.register(lib, name, commit)
  return reaper.AddRemoveReaScript(true, 0, script_path(lib, name), commit)
end

-- Take a script out of the action list again.
function files.forget(lib, name)
  reaper.AddRemoveReaScript(false, 0, script_path(lib, name), true)
end

-- Run another script of this installation.
function files.run_script(lib, name)
  reaper.Main_OnCommand(files.register(lib, name, true), 0)
end

return files
