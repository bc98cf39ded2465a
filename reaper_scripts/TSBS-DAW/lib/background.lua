-- The one script that runs in the background: it takes tickets to the spool, and stems from there into projects.
--
-- There is one in a REAPER at a time. It ends when no ticket is left. All it knows is in the tickets, so it may be
-- ended at any moment and begun again. What it needs for a stage of a ticket is loaded when there is one: all at once,
-- and in the tick of the action that wakes it, would be too much.
local require, folder = ...
local clock, daemon, files, settings = require("clock"), require("daemon"), require("files"), require("settings")
local pending_jobs, project, spools = require("pending_jobs"), require("project"), require("spool")
local text = require("text")

local background = {}
background.__index = background

local LOOK_EVERY_S = 0.25
local BEAT_ALIVE_S = 3.0
local FILE = "tsbs-daw_Background.lua"

local BESIDE_WINDOW_S = 0.004 -- of a tick that the window of jobs has a part of
local SAY_EVERY_S = 2 -- that this REAPER is there
local SHOW_EVERY_S, SHOWN = 1, 8 -- how far the jobs are; of so many at most
local STARTS = 2 -- of a daemon, for jobs that wait and find none: one that dies again and again is not for us to heal

local function new(installed)
  local root = installed.spool
  local self = { spool = spools.at(root), pending = pending_jobs.at(root), work = {}, queue = {}, looked = 0 }
  self.installed, self.starts = installed, 0
  self.me = text.new_id()
  self.look, self.say, self.show = clock.every(LOOK_EVERY_S), clock.every(SAY_EVERY_S), clock.every(SHOW_EVERY_S)
  return setmetatable(self, background)
end

-- Whether one is at work already.
local function alive()
  local beat = tonumber((settings.word("background"):match("^(%S+) ")))
  return beat ~= nil and math.abs(reaper.time_precise() - beat) < BEAT_ALIVE_S
end

-- Start the background script unless it runs. Called by actions, after they wrote tickets.
function background.wake()
  if not alive() then
    files.run_script(folder, FILE)
  end
end

function background:_beat()
  settings.word("background", ("%.3f %s"):format(reaper.time_precise(), self.me))
  if self.say() then
    self.pending:beat()
  end
end

function background:_give_up(id)
  local task = self.work[id]
  if task and task.give_up then
    task.give_up()
  end
  self.work[id] = nil
end

-- Muting a part of an item cuts it: before that, what else is wanted of its track must have been read.
function background:_is_read_around(ticket)
  for _, other in ipairs(self.queue) do
    local unread = other.stage == "requested" or other.stage == "wanted" and other.track == ticket.track
    if unread and not other.trouble and other.project.id == ticket.project.id then
      return false
    end
  end
  return true
end

-- What is to be done by the REAPER that has the project open: nil where none of its tabs has. Until it is known that
-- a ticket is its own, it does nothing; what it cannot do, it leaves to another one.
function background:_in_project(ticket, begin)
  if
    ticket.owner ~= pending_jobs.me() and not (project.find(ticket.project, ticket) and self.pending:claim(ticket))
  then
    return nil
  end
  local step, give_up = begin()
  if not step then
    self.pending:release(ticket)
  end
  return step, give_up
end

-- What is to be done for a ticket now: a step function and one that gives up, or nil.
function background:_begin(ticket)
  if ticket.stage ~= "submitted" then
    return self:_in_project(ticket, function()
      if ticket.stage == "requested" then
        return require("requests").of(self.pending, self.spool, ticket)
      end
      return require("recording").of(self.spool, ticket)
    end)
  end
  local result, err = self.spool:result(ticket.id)
  if err then
    return function()
      return nil, err
    end
  elseif not result then
    self.waiting = true
    return nil
  elseif result.state == "failed" or result.state == "dead" then
    return nil -- under way, or for the user to decide
  elseif result.state == "done" then
    return self:_in_project(ticket, function()
      return require("delivery").of(ticket, result, function()
        return self:_is_read_around(ticket)
      end)
    end)
  end
  return function()
    return true -- cancelled: nothing is owed any more
  end
end

-- Jobs that were handed over wait for a daemon: it may have ended for want of work just before, or have died since.
function background:_look_for_daemon()
  if self.waiting and self.starts < STARTS and not self.spool:alive() and not daemon.is_starting(self.spool) then
    self.starts = self.starts + 1
    daemon.ensure(self.installed, self.spool)
  end
  self.waiting = false
end

-- Look at all tickets, and forget work whose ticket is gone.
function background:_look_around()
  self:_look_for_daemon()
  local there = {}
  self.queue, self.looked = self.pending:all(), 0
  for _, ticket in ipairs(self.queue) do
    there[ticket.id] = not self.pending:is_anothers(ticket)
  end
  for id in pairs(self.work) do
    if not there[id] then
      self:_give_up(id)
    end
  end
end

-- Show how many jobs are under way, and how far the first of those is that the daemon has begun.
function background:_show_progress()
  local count, line, looked = 0, nil, 0
  for _, ticket in ipairs(self.queue) do
    if not ticket.trouble and not self.pending:is_anothers(ticket) then
      count = count + 1
      if ticket.stage == "submitted" and not line and looked < SHOWN then
        looked = looked + 1
        local fraction, phrase = self.spool:progress(ticket.id)
        line = fraction and fraction > 0 and ("%s: %d %%, %s"):format(ticket.name, fraction * 100 // 1, phrase) or nil
      end
    end
  end
  require("jobs_window").show_progress(count, line or count > 0 and "jobs are under way" or nil)
end

-- Begin what can be begun, ticket by ticket, as far as the tick allows; the next tick goes on from there.
function background:_begin_work(over)
  while self.looked < #self.queue do
    self.looked = self.looked + 1
    local ticket = self.queue[self.looked]
    if not self.work[ticket.id] and not ticket.trouble then
      local step, give_up = self:_begin(ticket)
      self.work[ticket.id] = step and { step = step, give_up = give_up, ticket = ticket }
    end
    if over() then
      return
    end
  end
end

function background:_trouble(ticket, sentence, what)
  ticket.trouble, ticket.offer = sentence, what
  self.pending:keep(ticket)
  require("jobs_window").notify(sentence)
end

function background:_advance(task, over)
  local ticket = task.ticket
  local began_as = ticket.stage
  local ok, done, err, what = pcall(task.step, over)
  if not ok then
    self:_give_up(ticket.id)
    self:_trouble(ticket, ("This is a bug: %s"):format(tostring(done)))
  elseif done == false then
    return
  elseif done == nil then
    self:_give_up(ticket.id)
    if err then
      self:_trouble(ticket, err, what)
    end
  else
    self.work[ticket.id] = nil
    if began_as == "wanted" then
      self.pending:keep(ticket)
    else
      self.pending:drop(ticket)
    end
    if began_as == "requested" then
      self.look = clock.every(LOOK_EVERY_S) -- at its tickets, at once
    end
    if type(err) == "table" and #err > 0 then
      settings.say(err, true)
      require("jobs_window").notify(err[1])
    end
  end
end

-- One tick. Returns whether anything is left to do.
function background:tick()
  local over = clock.budget(require("jobs_window").is_open() and BESIDE_WINDOW_S or nil)
  self:_beat()
  if self.looked == #self.queue and self.look() then
    self:_look_around()
  end
  if self.show() then
    self:_show_progress()
  end
  self:_begin_work(over)
  for _, ticket in ipairs(self.queue) do
    local task = self.work[ticket.id]
    if task then
      self:_advance(task, over)
    end
    if over() then
      break
    end
  end
  return #self.queue > 0
end

-- Forget the troubles of an earlier time: the disk may have room again, the file may be back.
function background:_forgive()
  for _, ticket in ipairs(self.pending:all()) do
    if ticket.trouble and not ticket.offer then
      ticket.trouble = nil
      self.pending:keep(ticket)
    end
  end
end

-- Run in the background until nothing is owed.
function background.run()
  clock.take_over()
  local installed = settings.installed()
  if not installed or alive() then
    return clock.no_undo_point()
  end
  require("setup").register_what_is_new()
  local self = new(installed)
  self:_forgive()
  local function loop()
    if self:tick() then
      reaper.defer(loop)
    end
  end
  reaper.atexit(function()
    for id in pairs(self.work) do
      self:_give_up(id)
    end
    settings.word("background", "")
    require("jobs_window").show_progress(0, nil)
    self.pending:leave()
  end)
  self:_beat()
  reaper.defer(loop) -- the action that began this has its own tick
end

return background
