-- How long one deferred tick may take, and when to look again.
local clock = {}

-- REAPER's window is drawn between two ticks: 10 ms are not noticed. A step that is begun must end within the rest.
local TICK_S = 0.007

-- A function that says whether this tick's time is used up.
function clock.budget()
  local until_s = reaper.time_precise() + TICK_S
  return function()
    return reaper.time_precise() >= until_s
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
