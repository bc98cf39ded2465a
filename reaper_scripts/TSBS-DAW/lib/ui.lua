-- Small windows: with ReaImGui where it is installed, which is drawn anew in every tick, else with REAPER's own gfx,
-- which is drawn where there is something new.
--
-- Both give a window the same few things: text, bar, button, check, choose, beside, gap; `part`, one of many in a long
-- list; and `footer`, its buttons, at the end. Each takes a line of its own unless `beside` was called before.
local require = ...
local clock, imgui, plain = require("clock"), require("ui_imgui"), require("ui_gfx")

local ui = {}

-- Open a window; `draw(window)` is called in every tick until it returns false, or the user closes the window. Running
-- its action again brings it up anew or, where it `toggles`, closes it. `closed` is called once, however it ends.
-- look: called in every tick, or nil; where it says that there is nothing new to show, and the user does nothing, the
-- window is not drawn.
function ui.open(title, width, height, draw, closed, toggles, look)
  if toggles then
    clock.toggle()
  else
    clock.take_over()
  end
  local is_closed, has_stayed = false, false
  local function close()
    if not is_closed and closed then
      is_closed = true
      closed()
    end
  end
  if toggles then
    reaper.atexit(close)
  end
  local window = imgui.available() and imgui.new(title, width, height) or plain.new(title, width, height)
  local function loop()
    local is_new = not look or look()
    if window:begin(is_new) then
      local stay = not window.drawing or draw(window)
      window:finish()
      if stay ~= false then
        has_stayed = true
        return reaper.defer(loop)
      end
    end
    window:close()
    close()
    if not has_stayed then
      clock.no_undo_point() -- the window could not be opened
    end
  end
  loop()
end

return ui
