-- How long the scripts may take in one of REAPER's ticks, and when to look again.
--
-- REAPER's window is drawn between two ticks: 10 ms are not noticed. All work is cut into small steps, and a step
-- begins only as long as the tick's time is not used up. The scripts of one REAPER share that time: it is less than
-- 10 ms, so that a step that is begun last, and what REAPER itself needs, have room.
local require = ...
local settings = require("settings")

local clock = {}

clock.ALONE = "alone" -- what a step function returns after false that asks for a tick of its own

local TICK_S = 0.003
local READ_S = 0.005 -- for reading audio, whose steps are short and of one length
local LEAST_S = 0.001 -- for a script whose turn comes when others have used up the tick's time
local SAME_TICK_S = 0.015 -- ticks are about 30 ms apart, and all scripts have their turns together

-- When the tick began that this script has its turn in: the first script that asks says so to the others.
local function tick_began(now)
  local began = tonumber((settings.word("tick")))
  if began and now >= began and now - began < SAME_TICK_S then
    return began
  end
  settings.word("tick", ("%.6f"):format(now))
  return now
end

-- Lua collects garbage while it allocates, and may then take longer than a tick. So it is kept from that: it collects
-- here, a little in every tick, and all at once only where that is not enough.
local COLLECT_S, ENOUGH, TOO_MUCH_KB = 0.0005, 1.2, 64 * 1024
local kept_kb, is_collecting

local function collect(now)
  collectgarbage("stop")
  local used_kb = collectgarbage("count")
  kept_kb = kept_kb or used_kb
  if used_kb > kept_kb + TOO_MUCH_KB then
    collectgarbage("collect")
    is_collecting, kept_kb = false, collectgarbage("count")
  elseif is_collecting or used_kb > ENOUGH * kept_kb then
    is_collecting = true
    repeat
      if collectgarbage("step", 0) then
        is_collecting, kept_kb = false, collectgarbage("count")
      end
    until not is_collecting or reaper.time_precise() - now > COLLECT_S
  end
end

-- Three functions that say whether this tick's time is used up, whether half of it is, and whether that for reading
-- audio is.
function clock.budget()
  local now = reaper.time_precise()
  local began = tick_began(now)
  collect(now)
  now = reaper.time_precise()
  local left_s = math.max(began + TICK_S - now, LEAST_S)
  local function ends_at(end_s)
    return function()
      return reaper.time_precise() >= end_s
    end
  end
  return ends_at(now + left_s), ends_at(now + left_s / 2), ends_at(began + READ_S)
end

-- A step function of a body that goes through many small things: it calls `pause()` between two of them, which ends the
-- tick when its time is used up, and says whether it did: then the project may be another one. `rest()` ends the tick
-- in any case. Nothing in it may read audio: an accessor gives nothing inside a coroutine.
function clock.sliced(body)
  local over
  local function rest()
    coroutine.yield(false)
  end
  local function pause()
    if not over() then
      return false
    end
    rest()
    return true
  end
  local thread = coroutine.create(body)
  return function(over_now)
    over = over_now
    local ok, done, err = coroutine.resume(thread, pause, rest)
    if not ok then
      error(done, 0)
    end
    return done, err
  end
end

-- Run such a body: now, and as long as it takes in later ticks.
function clock.run(body)
  local step = clock.sliced(body)
  local function loop()
    if step(clock.budget()) == false then
      return reaper.defer(loop)
    end
    clock.no_undo_point()
  end
  loop()
end

-- Called by a script that has done its work: REAPER adds an undo point with the name of one that ends without having
-- deferred anything. It may be run again before that.
function clock.no_undo_point()
  clock.take_over()
  reaper.defer(function() end)
end

local END_OTHER, BEGIN_ANEW = 1, 2 -- of REAPER 7's action options

-- This script may be begun again while it runs: then it takes the place of the one before, and REAPER asks nothing.
function clock.take_over()
  if reaper.set_action_options then
    reaper.set_action_options(END_OTHER | BEGIN_ANEW)
  end
end

-- This script ends when it is begun again while it runs, as a window does whose toolbar button is clicked twice.
function clock.toggle()
  if reaper.set_action_options then
    reaper.set_action_options(END_OTHER)
  end
end

-- A function that is true once in `every_s` seconds, and the first time.
function clock.every(every_s)
  local next_s = -math.huge
  return function()
    local now = reaper.time_precise()
    if now < next_s then
      return false
    end
    next_s = now + every_s
    return true
  end
end

tick_began(reaper.time_precise()) -- an action's first tick begins with loading its modules

return clock
