-- What these scripts still owe the user: one ticket for every job that has not been put into its project.
--
-- A ticket is a file in <spool>/reaper/, so that nothing is lost when REAPER is closed, or crashes. Changing one writes
-- a new file, <id>.<number>.json, and then removes the old: at every moment there is a whole one.
local require = ...
local files, json, text = require("files"), require("json"), require("text")

local pending_jobs = {}
pending_jobs.__index = pending_jobs

pending_jobs.SCHEMA = 1

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
