-- The one script that runs in the background: it takes tickets to the spool, and stems from there into projects.
--
-- There is one in a REAPER at a time. It ends when no ticket is left. All it knows is in the tickets, so it may be
-- ended at any moment and begun again. What it needs for a stage of a ticket is loaded when there is one: all at once,
-- and in the tick of the action that wakes it, would be too much.
--
-- A tick has two halves: in one it looks around (at tickets, results and progress), in the other it works at what it
-- found, ticket by ticket. Both go on in the next tick where they were. Looking around is a coroutine; work is not,
-- since REAPER gives no audio inside one.
local require, folder = ...
local clock, daemon, files, settings = require("clock"), require("daemon"), require("files"), require("settings")
local pending_jobs, project, spools = require("pending_jobs"), require("project"), require("spool")
local notices, text = require("notices"), require("text")

local background = {}
background.__index = background

local LOOK_EVERY_S = 0.25
local BEAT_ALIVE_S = 3.0
local FILE = "tsbs-daw_Background.lua"

local BEAT_EVERY_S, SAY_EVERY_S = 0.5, 2 -- that the script runs, to other scripts; that this REAPER does, to others
local SHOW_EVERY_S, SHOWN = 1, 8 -- how far the jobs are; of so many at most
local STARTS = 2 -- of a daemon, for jobs that wait and find none: one that dies again and again is not for us to heal

local function new(installed)
  local root = installed.spool
  local self = setmetatable({ spool = spools.at(root), pending = pending_jobs.at(root) }, background)
  self.work, self.queue, self.settled = {}, {}, {} -- by id; in order; by id, what was done with since the last look
  self.installed, self.starts = installed, 0
  self.me = text.new_id()
  self.look, self.show = clock.every(LOOK_EVERY_S), clock.every(SHOW_EVERY_S)
  self.beat, self.say = clock.every(BEAT_EVERY_S), clock.every(SAY_EVERY_S)
  self.look_around = clock.sliced(function(pause, rest)
    self:_look_around(pause, rest)
  end)
  return self
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
  if self.beat() then
    settings.word("background", ("%.3f %s"):format(reaper.time_precise(), self.me))
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
function background:_in_project(ticket, pause, begin)
  local is_own = ticket.owner == pending_jobs.me()
  if not is_own and not (project.find(ticket.project, ticket, pause) and self.pending:claim(ticket)) then
    return nil
  end
  local step, give_up = begin()
  if not step then
    self.pending:release(ticket)
  end
  return step, give_up
end

-- What is to be done for a ticket now: a step function and one that gives up, or nil.
function background:_begin(ticket, pause)
  if ticket.stage ~= "submitted" then
    return self:_in_project(ticket, pause, function()
      if ticket.stage == "requested" then
        return require("requests").of(self.pending, self.spool, ticket)
      end
      return require("recording").of(self.spool, ticket, pause)
    end)
  end
  local result, err = self.spool:result(ticket.id, pause)
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
    return self:_in_project(ticket, pause, function()
      return require("delivery").of(ticket, result, function()
        return self:_is_read_around(ticket)
      end, pause)
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

-- Read all tickets, and forget work whose ticket is gone.
function background:_read_tickets(pause)
  local there = {}
  self.settled = {}
  local queue = self.pending:all(pause)
  for _, ticket in ipairs(queue) do
    there[ticket.id] = not self.pending:is_anothers(ticket)
  end
  for id in pairs(self.work) do
    if not there[id] then
      self:_give_up(id)
    end
  end
  self.queue, self.has_looked = queue, true
end

-- Show how many jobs are in progress, and how far the first of those is that the daemon has begun.
function background:_show_progress(pause)
  local count, line, looked = 0, nil, 0
  for _, ticket in ipairs(self.queue) do
    if not ticket.trouble and not self.settled[ticket.id] and not self.pending:is_anothers(ticket) then
      count = count + 1
      if ticket.stage == "submitted" and not line and looked < SHOWN then
        looked = looked + 1
        local fraction, phrase = self.spool:progress(ticket.id)
        line = fraction and fraction > 0 and ("%s: %d %%, %s"):format(ticket.name, fraction * 100 // 1, phrase) or nil
        pause()
      end
    end
  end
  notices.show_progress(count, line or count > 0 and "jobs are in progress" or nil)
end

-- Begin what can be begun, ticket by ticket.
function background:_begin_work(pause)
  for _, ticket in ipairs(self.queue) do
    if not self.work[ticket.id] and not self.settled[ticket.id] and not ticket.trouble then
      local step, give_up = self:_begin(ticket, pause)
      self.work[ticket.id] = step and { step = step, give_up = give_up, ticket = ticket }
      pause()
    end
  end
end

-- Forget the troubles of an earlier time: the disk may have room again, the file may be back.
function background:_forgive(pause)
  for _, ticket in ipairs(self.pending:all(pause)) do
    if ticket.trouble and not ticket.offer then
      ticket.trouble = nil
      self.pending:keep(ticket)
      pause()
    end
  end
end

-- Look around, again and again.
function background:_look_around(pause, rest)
  require("setup").register_what_is_new(pause)
  self:_forgive(pause)
  while true do
    if self.say() then
      self.pending:beat()
      pause()
    end
    if self.look() then
      self:_look_for_daemon()
      pause()
      self:_read_tickets(pause)
      self:_begin_work(pause)
    end
    if self.show() then
      self:_show_progress(pause)
    end
    rest()
  end
end

function background:_trouble(ticket, sentence, what)
  ticket.trouble, ticket.offer = sentence, what
  self.pending:keep(ticket)
  notices.notify(sentence)
end

function background:_advance(task, over, late)
  local ticket = task.ticket
  local began_as = ticket.stage
  local ok, done, err, what = pcall(task.step, over, late)
  if not ok then
    self:_give_up(ticket.id)
    self:_trouble(ticket, ("This is a bug: %s"):format(tostring(done)))
  elseif done == false then
    task.alone = err == clock.ALONE
  elseif done == nil then
    self:_give_up(ticket.id)
    if err then
      self:_trouble(ticket, err, what)
    end
  else
    self:_finish(ticket, began_as, err)
  end
end

-- A stage of a ticket is done. said: sentences for the user, or nil
function background:_finish(ticket, stage, said)
  self.work[ticket.id], self.settled[ticket.id] = nil, true
  if stage == "wanted" then
    self.pending:keep(ticket)
  else
    self.pending:drop(ticket)
  end
  if stage == "requested" then
    self.look = clock.every(LOOK_EVERY_S) -- at its tickets, at once
  end
  if type(said) == "table" and #said > 0 then
    settings.say(said, true)
    notices.notify(said[1])
  end
end

-- The first task that asked for a tick of its own begins this one, but not in every tick: looking around has to go on.
function background:_advance_alone(over)
  for _, ticket in ipairs(self.was_alone and {} or self.queue) do
    local task = self.work[ticket.id]
    if task and task.alone then
      self.was_alone = true
      return self:_advance(task, over)
    end
  end
end

-- One tick. Returns whether anything is left to do.
function background:tick()
  local over, half, late = clock.budget()
  self:_beat()
  self:_advance_alone(over)
  if not half() then
    self.was_alone = false
    self.look_around(next(self.work) and half or over)
  end
  for _, ticket in ipairs(self.queue) do
    local task = self.work[ticket.id]
    if task and not task.alone then
      if over() then
        break
      end
      self:_advance(task, over, late)
    end
  end
  return not self.has_looked or #self.queue > 0
end

-- Run in the background until nothing is owed.
function background.run()
  clock.take_over()
  local installed = settings.installed()
  if not installed or alive() then
    return clock.no_undo_point()
  end
  local self = new(installed)
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
    notices.show_progress(0, nil)
    self.pending:leave()
  end)
  self:_beat()
  reaper.defer(loop) -- the action that began this has its own tick
end

return background
