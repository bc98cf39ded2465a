-- What these scripts still owe the user: one ticket for every job that has not been put into its project.
--
-- A ticket is a file in <spool>/reaper/, so that nothing is lost when REAPER is closed, or crashes. Changing one writes
-- a new file, <id>.<number>.json, and then removes the old: at every moment there is a whole one.
--
-- Several REAPERs may have one spool. A ticket belongs to the one that it was asked for in, its `owner`, as long as
-- that one runs and has the project open; then to whichever has. A REAPER that has work says so in running/<owner>, a
-- file with the time.
local require = ...
local files, json, settings, text = require("files"), require("json"), require("settings"), require("text")

local pending_jobs = {}
pending_jobs.__index = pending_jobs

pending_jobs.SCHEMA = 1

local RUNNING_S = 15 -- a REAPER that has said nothing for so long was closed, or has crashed

function pending_jobs.at(root)
  return setmetatable({ folder = files.join(root, "reaper"), known = {} }, pending_jobs)
end

local function parts(name)
  local id, number = name:match("^([%w_-]+)%.(%d+)%.json$")
  return id, tonumber(number)
end

-- The newest file of every ticket: id -> number; and the names of older ones.
function pending_jobs:_numbers()
  local newest, old = {}, {}
  for _, name in ipairs(files.list(self.folder)) do
    local id, number = parts(name)
    if id then
      local known = newest[id]
      if known then
        old[#old + 1] = ("%s.%d.json"):format(id, math.min(known, number))
      end
      newest[id] = math.max(known or 0, number)
    end
  end
  return newest, old
end

local function read(path)
  local content = files.read(path)
  local found = content and json.decode(content)
  if type(found) == "table" and found.schema == pending_jobs.SCHEMA and type(found.job) == "table" then
    return found
  end
  return nil
end

-- All tickets, oldest first; one that did not change is the same table as before. What cannot be read stays there.
function pending_jobs:all()
  local found = {}
  local newest, old = self:_numbers()
  for id, number in pairs(newest) do
    local ticket = self.known[id]
    if not ticket or ticket.number ~= number then
      ticket = read(files.join(self.folder, ("%s.%d.json"):format(id, number)))
    end
    if ticket and ticket.id == id then
      ticket.number = number
      found[#found + 1] = ticket
    end
  end
  self.known = {}
  for _, ticket in ipairs(found) do
    self.known[ticket.id] = ticket
  end
  for _, name in ipairs(old) do
    os.remove(files.join(self.folder, name))
  end
  table.sort(found, function(a, b)
    return a.id < b.id
  end)
  return found
end

-- The name of this REAPER, as long as it runs.
function pending_jobs.me()
  local me = settings.word("instance")
  return me ~= "" and me or settings.word("instance", text.new_id())
end

function pending_jobs:_running(owner)
  return files.join(self.folder, "running/" .. owner)
end

-- Say that this REAPER is there.
function pending_jobs:beat()
  local path = self:_running(pending_jobs.me())
  local file = io.open(path, "wb")
  if not file and files.make_folder(files.join(self.folder, "running")) then
    file = io.open(path, "wb")
  end
  if file then
    file:write(("%d"):format(os.time()))
    file:close()
  end
end

-- Say that this REAPER ends, or has nothing to do.
function pending_jobs:leave()
  os.remove(self:_running(pending_jobs.me()))
end

-- Whether a ticket is another REAPER's, which is running.
function pending_jobs:is_anothers(ticket)
  if ticket.owner == nil or ticket.owner == pending_jobs.me() then
    return false
  end
  local content = files.read(self:_running(ticket.owner))
  local beat = tonumber(content or "")
  return content ~= nil and (beat == nil or math.abs(os.time() - beat) < RUNNING_S) -- nil: it is being written
end

-- Make a ticket this REAPER's own. Returns whether it is: of several that try, one can rename the file.
function pending_jobs:claim(ticket)
  if ticket.owner == pending_jobs.me() then
    return true
  elseif self:is_anothers(ticket) then
    return false
  end
  local from, to = ticket.number, ticket.number + 1
  local path = files.join(self.folder, ticket.id)
  if not os.rename(("%s.%d.json"):format(path, from), ("%s.%d.json"):format(path, to)) then
    return false
  end
  ticket.number, ticket.owner = to, pending_jobs.me()
  return (self:keep(ticket))
end

-- Leave a ticket to whichever REAPER has its project open.
function pending_jobs:release(ticket)
  if ticket.owner ~= nil and ticket.owner == pending_jobs.me() then
    ticket.owner = nil
    self:keep(ticket)
  end
end

-- Write a ticket down. true, or nil and a sentence.
function pending_jobs:keep(ticket)
  local before = ticket.number
  ticket.schema = pending_jobs.SCHEMA
  ticket.number = (before or 0) + 1
  local content, err = json.encode(ticket)
  if not content then
    return nil, ("%s cannot be asked for: %s; rename it."):format(text.shown(ticket.name), err)
  end
  local path = files.join(self.folder, ("%s.%d.json"):format(ticket.id, ticket.number))
  local written = files.write_new(path, content)
  if not written then
    local made
    made, err = files.make_folder(self.folder)
    if not made then
      return nil, err
    end
    written, err = files.write_new(path, content)
  end
  if not written then
    return nil, ("Nothing can be written to %s (%s); make room there."):format(text.shown(self.folder), tostring(err))
  end
  if before then
    os.remove(files.join(self.folder, ("%s.%d.json"):format(ticket.id, before)))
  end
  return true
end

-- The debt is paid, or not wanted any more.
function pending_jobs:drop(ticket)
  os.remove(files.join(self.folder, ("%s.%d.json"):format(ticket.id, ticket.number)))
end

return pending_jobs
