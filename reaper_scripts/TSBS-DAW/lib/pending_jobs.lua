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

local mine -- the name of this REAPER

function pending_jobs.at(root)
  return setmetatable({ folder = files.join(root, "reaper"), known = {}, seen = {} }, pending_jobs)
end

local function parts(name)
  local id, number = name:match("^([%w_-]+)%.(%d+)%.json$")
  return id, tonumber(number)
end

-- The newest file of every ticket: their ids in the folder's order, and id -> number; and the names of older ones.
function pending_jobs:_numbers(pause)
  local ids, newest, old = {}, {}, {}
  for _, name in ipairs(files.list(self.folder, pause)) do
    local id, number = parts(name)
    if id then
      local known = newest[id]
      if known then
        old[#old + 1] = ("%s.%d.json"):format(id, math.min(known, number))
      else
        ids[#ids + 1] = id
      end
      newest[id] = math.max(known or 0, number)
    end
  end
  return ids, newest, old
end

local function read(path, pause)
  local content = files.read(path)
  local found = content and json.decode(content, pause)
  if type(found) == "table" and found.schema == pending_jobs.SCHEMA and type(found.job) == "table" then
    return found
  end
  return nil
end

function pending_jobs:_path(id, number)
  return files.join(self.folder, ("%s.%d.json"):format(id, number))
end

-- Bring what is known of a ticket up to date; what was done to it here since its folder was listed stands.
--
-- Args:    number: its newest file when the folder was listed; nil: it had none
-- Returns: whether a file was looked at
function pending_jobs:_look_at(id, number, pause)
  local known = self.known[id]
  if not number then
    self.known[id] = known and files.exists(self:_path(id, known.number)) and known or nil
    return known ~= nil
  elseif known and known.number >= number then
    return false
  end
  local path = self:_path(id, number)
  local found = read(path, pause)
  if self.known[id] ~= known then
    return true -- it was done with meanwhile
  elseif found and found.id == id then
    found.number = number
    self.known[id] = found
  elseif files.exists(path) then
    self.known[id] = nil
  end
  return true
end

local function by_id(a, b)
  return a.id < b.id
end

-- Most systems list a folder in the order of its names already.
local function sort(tickets)
  for index = 2, #tickets do
    if by_id(tickets[index], tickets[index - 1]) then
      return table.sort(tickets, by_id)
    end
  end
end

-- All tickets, oldest first; one that did not change is the same table as before. What cannot be read stays there.
-- pause: called between two of them, or nil. What is done to tickets meanwhile is seen.
function pending_jobs:all(pause)
  pause = pause or function() end
  local ids, newest, old = self:_numbers(pause)
  for id in pairs(self.known) do
    ids[#ids + 1] = not newest[id] and id or nil
  end
  local found = {}
  for _, id in ipairs(ids) do
    if self:_look_at(id, newest[id], pause) then
      pause()
    end
  end
  for _, id in ipairs(ids) do
    found[#found + 1] = self.known[id]
  end
  for _, name in ipairs(old) do
    os.remove(files.join(self.folder, name))
  end
  sort(found)
  return found
end

-- The name of this REAPER, as long as it runs.
function pending_jobs.me()
  if not mine then
    local known = settings.word("instance")
    mine = known ~= "" and known or settings.word("instance", text.new_id())
  end
  return mine
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

-- Whether another REAPER is running. Many tickets are of one owner, so that its word is read once in a second.
function pending_jobs:_is_running(owner)
  local now, seen = os.time(), self.seen[owner]
  if not seen or seen.at ~= now then
    local content = files.read(self:_running(owner))
    local beat = tonumber(content or "") -- nil: it is being written
    seen = { at = now, runs = content ~= nil and (beat == nil or math.abs(now - beat) < RUNNING_S) }
    self.seen[owner] = seen
  end
  return seen.runs
end

-- Whether a ticket is another REAPER's, which is running.
function pending_jobs:is_anothers(ticket)
  return ticket.owner ~= nil and ticket.owner ~= pending_jobs.me() and self:_is_running(ticket.owner)
end

-- Make a ticket this REAPER's own. Returns whether it is: of several that try, one can rename the file.
function pending_jobs:claim(ticket)
  if ticket.owner == pending_jobs.me() then
    return true
  elseif self:is_anothers(ticket) then
    return false
  end
  local from, to = ticket.number, ticket.number + 1
  if not os.rename(self:_path(ticket.id, from), self:_path(ticket.id, to)) then
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
    return nil, ("%s cannot be requested: %s; rename it."):format(text.shown(ticket.name), err)
  end
  local path = self:_path(ticket.id, ticket.number)
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
    return nil, ("Cannot write to %s (%s); free some space there."):format(text.shown(self.folder), tostring(err))
  end
  if before then
    os.remove(self:_path(ticket.id, before))
  end
  return true
end

-- The debt is paid, or not wanted any more.
function pending_jobs:drop(ticket)
  self.known[ticket.id] = nil
  os.remove(self:_path(ticket.id, ticket.number))
end

return pending_jobs
