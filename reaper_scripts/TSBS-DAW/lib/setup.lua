-- The setup action: registers every action of this folder, finds the program, lets it write its settings and check this
-- machine, and says in a window what is missing. No terminal is needed for any of it.
local require, folder = ...
local clock, files, json = require("clock"), require("files"), require("json")
local settings, text = require("settings"), require("text")

local setup = {}

local ANSWER = "Data/TSBS-DAW/setup.json" -- written by `tsbs-daw reaper setup`
local ANSWER_S, CHECK_S = 20, 300 -- how long a program may take to say that it is there, and to check the machine
local LOOK_EVERY_S = 0.25
local INSTALL = "tsbs-daw was not found on this machine. It needs Python 3.10 or newer, from python.org. "
  .. 'Then run "pipx install tsbs-daw" in a terminal, and "Try again" here; or choose the program yourself.'
local UNSAFE = "REAPER's resource folder has quotes or other characters in its name that cannot be passed on. "
  .. "Run `tsbs-daw reaper install` in a terminal."

-- Returns how many actions REAPER has taken into its list. pause: called after each of them, or nil
function setup.register(pause)
  local names = {}
  for _, name in ipairs(files.list(files.scripts_folder(folder))) do
    names[#names + 1] = name:match("^tsbs%-daw_.*%.lua$")
  end
  local count = 0
  for index, name in ipairs(names) do
    count = count + (files.register(folder, name, index == #names) ~= 0 and 1 or 0)
    if pause then
      pause()
    end
  end
  settings.choose("registered", setup.stamp())
  return count
end

-- By what an installation is told from another: its version, and which actions it has.
function setup.stamp()
  local names = files.list(files.scripts_folder(folder))
  return ("%s %d %d"):format((settings.installed() or {}).version or "", #names, #table.concat(names))
end

-- Register what was installed while REAPER ran: it has written its list over what the installer had put there.
function setup.register_what_is_new(pause)
  if settings.choice("registered") ~= setup.stamp() then
    setup.register(pause)
  end
end

local function is_windows()
  return package.config:sub(1, 1) == "\\"
end

-- A path for a command line, or nil where it cannot be quoted safely.
local function quoted(path)
  if path:find('["$`%%!\r\n]') or not is_windows() and path:find("\\", 1, true) then
    return nil
  end
  return '"' .. path .. '"'
end

-- The commands to try: what was used before, what the user chose, the places that installers use, and the search path.
local function commands()
  local resource = quoted(reaper.GetResourcePath())
  if not resource then
    return nil
  end
  local found = { (settings.installed() or {}).setup }
  local function add(program)
    found[#found + 1] = program .. " reaper setup --resource " .. resource
  end
  local home = os.getenv(is_windows() and "USERPROFILE" or "HOME") or ""
  local name = is_windows() and "tsbs-daw.exe" or "tsbs-daw"
  for _, path in ipairs({
    settings.choice("program") or "",
    home .. "/.local/bin/" .. name,
    "/opt/homebrew/bin/" .. name,
    "/usr/local/bin/" .. name,
  }) do
    if path ~= "" and quoted(path) and files.exists(path) then
      add(quoted(path))
    end
  end
  add(name)
  for _, python in ipairs(is_windows() and { "py", "python" } or { "python3" }) do
    add(python .. " -m tsbs_daw")
  end
  return found
end

local function answer_path()
  return files.join(reaper.GetResourcePath(), ANSWER)
end

local function answer()
  local content = files.read(answer_path())
  local found = content and json.decode(content)
  return type(found) == "table" and type(found.findings) == "table" and found or nil
end

-- Try one command after the other. state: looking, checking, done, none, unsafe
local search = {}
search.__index = search

function search.new()
  local self = setmetatable({ look = clock.every(LOOK_EVERY_S) }, search)
  self:begin()
  return self
end

function search:begin()
  self.commands, self.at = commands(), 0
  self.state = self.commands and "looking" or "unsafe"
  if self.commands then
    self:_next()
  end
end

function search:_next()
  repeat
    self.at = self.at + 1
    local command = self.commands[self.at]
    if not command then
      self.state = "none"
      return
    end
    os.remove(answer_path())
    self.since_s = reaper.time_precise()
  until reaper.ExecProcess(command, -2) ~= nil
end

function search:step()
  if self.state ~= "looking" and self.state ~= "checking" or not self.look() then
    return
  end
  local found = answer()
  if found then
    self.found = found
    self.state = found.state == "done" and "done" or "checking"
  end
  if self.state ~= "done" and reaper.time_precise() - self.since_s > (found and CHECK_S or ANSWER_S) then
    self.state = "looking"
    self:_next()
  end
end

local function draw_findings(window, found)
  window:text(("tsbs-daw %s, with Python in %s."):format(tostring(found.version), text.shown(found.python)))
  window:gap()
  local problems = 0
  for _, finding in ipairs(found.findings) do
    if finding.status == "problem" then
      problems = problems + 1
    end
    if finding.status ~= "ok" then
      local mark = finding.status == "problem" and "Problem" or "Note"
      window:text(("%s: %s"):format(mark, tostring(finding.what)))
      window:text(tostring(finding.advice or ""), true)
    end
  end
  window:gap()
  local count = ("%d %s to fix."):format(problems, problems == 1 and "problem" or "problems")
  window:text(problems == 0 and "Everything that is needed works." or count)
end

-- The user chooses the program, which is remembered.
local function choose_program()
  local ok, path = reaper.GetUserFileNameForRead("", "The program tsbs-daw", is_windows() and "exe" or "")
  if ok then
    settings.choose("program", files.plain(path))
  end
  return ok
end

local function draw(window, count, model)
  window:text(("%d actions are registered in the action list."):format(count))
  window:gap()
  if model.state == "looking" then
    window:text("Looking for tsbs-daw: " .. model.commands[model.at])
  elseif model.state == "checking" then
    window:text("tsbs-daw was found and is checking this machine; this takes up to a minute.")
  elseif model.state == "done" then
    draw_findings(window, model.found)
  else
    window:text(model.state == "none" and INSTALL or UNSAFE)
  end
  local pressed = window:footer(model.state == "none" and { "Try again", "Choose the program", "Close" } or { "Close" })
  if pressed == "Try again" or pressed == "Choose the program" and choose_program() then
    model:begin()
  end
  return pressed ~= "Close"
end

function setup.run()
  local count, model = setup.register(), search.new()
  require("ui").open("tsbs-daw: setup", 560, 320, function(window)
    model:step()
    return draw(window, count, model)
  end)
end

return setup
