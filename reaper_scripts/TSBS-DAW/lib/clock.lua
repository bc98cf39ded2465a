-- How long one deferred tick may take, and when to look again.
local clock = {}

-- REAPER's window is drawn between two ticks: 10 ms are not noticed. A step that is begun must end within the rest.
local TICK_S = 0.007

-- A function that says whether this tick's time is used up, or what of it is named.
function clock.budget(seconds)
  local until_s = reaper.time_precise() + (seconds or TICK_S)
  return function()
    return reaper.time_precise() >= until_s
  end
end

-- A step function of a body that goes through many small things: it calls `pause()` between two of them, which ends the
-- tick when its time is used up, and says whether it did: then the project may be another one.
-- Nothing in it may read audio: an accessor gives nothing inside a coroutine.
function clock.sliced(body)
  local over
  local function pause()
    if not over() then
      return false
    end
    coroutine.yield(false)
    return true
  end
  local thread = coroutine.create(body)
  return function(over_now)
    over = over_now
    local ok, done, err = coroutine.resume(thread, pause)
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

return clock
