-- A window in REAPER's own gfx: rows from top to bottom, with a scroll bar where they do not fit, and buttons that stay
-- at the bottom. It is never larger than the screen.
--
-- Keys: Tab and the arrows go from one thing to the next, Left and Right go through a list, Space presses, Return is
-- the first button at the bottom, Escape closes the window. The wheel scrolls.
local require = ...

local window = {}
window.__index = window

local LINE, MARGIN, GAP, SCROLL = 24, 12, 8, 8 -- in pixels of a screen of 1080 lines
local LABEL = 96 -- how wide the names of lists are
local FONT, FONT_SIZE = "Arial", 15
local TITLE_BAR = 40
local REFERENCE_LINES = 1080
local COLORS = {
  back = { 0.16, 0.16, 0.17 },
  text = { 0.90, 0.90, 0.88 },
  faint = { 0.64, 0.64, 0.62 },
  button = { 0.30, 0.31, 0.33 },
  hover = { 0.38, 0.40, 0.43 },
  focus = { 0.95, 0.75, 0.30 },
  bar = { 0.20, 0.55, 0.60 },
}
local KEY = {
  tab = 9,
  enter = 13,
  escape = 27,
  space = 32,
  up = 30064,
  down = 1685026670,
  left = 1818584692,
  right = 1919379572,
  page_up = 1885828464,
  page_down = 1885824110,
}
local SHIFT = 8 -- of gfx.mouse_cap
local INPUTS = { "mouse_x", "mouse_y", "mouse_cap", "w", "h" }
local FRAMES = 3 -- that are drawn when the user does something
local LEARNT, PART_LINES = 4, 4 -- parts of a list whose size is learnt in a frame; how high others seem

local function paint(name)
  local color = COLORS[name]
  gfx.set(color[1], color[2], color[3], 1)
end

function window.new(title, width, height)
  local left, top, right, bottom = reaper.my_getViewport(0, 0, 0, 0, 0, 0, 0, 0, true)
  local lines = math.abs(bottom - top)
  -- A large screen without scaling of its own gets larger letters: by halves, so that they stay sharp.
  local scale = math.max(1, math.floor(2 * lines / REFERENCE_LINES) / 2)
  width = math.min(math.floor(width * scale), math.abs(right - left) - 2 * MARGIN)
  height = math.min(math.floor(height * scale), lines - TITLE_BAR - 2 * MARGIN)
  gfx.ext_retina = 1 -- REAPER answers with the scale of the display, where it knows one
  gfx.init(title, width, height, 0, left + (math.abs(right - left) - width) // 2, top + TITLE_BAR)
  if gfx.ext_retina > 1 then
    scale = gfx.ext_retina
  end
  gfx.setfont(1, FONT, math.floor(FONT_SIZE * scale))
  local self = { pressed = false, scroll = 0, focus = 0, count = 0, content = 0, frames = 0, input = {} }
  setmetatable(self, window)
  self.line, self.margin, self.gap_height =
    math.floor(LINE * scale), math.floor(MARGIN * scale), math.floor(GAP * scale)
  self.label, self.scroll_bar, self.footer_height = math.floor(LABEL * scale), math.floor(SCROLL * scale), 0
  return self
end

function window:_move_focus(by)
  self.focus = self.count > 0 and (self.focus - 1 + by) % self.count + 1 or 0
  self.follow_focus = true
end

function window:_take_key(char)
  local page = gfx.h - self.footer_height - self.line
  self.key = nil
  if char == KEY.tab then
    self:_move_focus(gfx.mouse_cap & SHIFT ~= 0 and -1 or 1)
  elseif char == KEY.down or char == KEY.up then
    self:_move_focus(char == KEY.down and 1 or -1)
  elseif char == KEY.page_down or char == KEY.page_up then
    self.scroll = self.scroll + (char == KEY.page_down and page or -page)
  elseif char ~= 0 then
    self.key = char
  end
end

-- Whether the user has done something since the last tick: moved the mouse, pressed a button or a key, turned the
-- wheel, or changed the window's size.
function window:_is_used(char)
  local is_same = char == 0 and gfx.mouse_wheel == 0
  for index, name in ipairs(INPUTS) do
    local now = gfx[name]
    is_same = is_same and self.input[index] == now
    self.input[index] = now
  end
  return not is_same
end

-- Returns false when the user closed the window: by its corner, or by Escape. is_new: there is something new to draw;
-- `drawing` says whether there is, after what the user did also, and then some frames longer: a press acts when it
-- ends, and a list knows how long it is when it was drawn.
function window:begin(is_new)
  local char = gfx.getchar()
  if char < 0 or char == KEY.escape then
    return false
  end
  local is_used = self:_is_used(char)
  self.frames = is_used and FRAMES or math.max(self.frames - 1, is_new and 1 or 0)
  self.drawing = self.frames > 0
  if not self.drawing then
    return true
  end
  self:_take_key(char)
  local down = gfx.mouse_cap & 1 == 1
  self.clicked, self.pressed = self.pressed and not down, down
  self.scroll = self.scroll - gfx.mouse_wheel / 120 * 3 * self.line
  gfx.mouse_wheel = 0
  self.room = gfx.h - self.footer_height
  self.scroll = math.max(0, math.min(self.scroll, self.content - self.room))
  self.y, self.next_x, self.next, self.learnt = self.margin - math.floor(self.scroll), nil, 0, 0
  self.clear(0)
  return true
end

-- Nothing is below this line.
function window.clear(y)
  paint("back")
  gfx.rect(0, y, gfx.w, gfx.h - y, 1)
end

function window:finish()
  if not self.drawing then
    return
  end
  local content = self.y + math.floor(self.scroll) + self.margin
  if self.learnt > LEARNT or content ~= self.content then
    self.frames = math.max(self.frames, 2) -- the scroll bar, and parts whose size is not known, come in the next one
  end
  self.count, self.content = self.next, content
  if self.content > self.room then
    local length = self.room * self.room / self.content
    paint("button")
    gfx.rect(gfx.w - self.scroll_bar, self.scroll / self.content * self.room, self.scroll_bar - 2, length, 1)
  end
  gfx.update()
end

function window.close()
  gfx.quit()
end

-- The next thing goes to the right of the one before, if there is room.
function window:beside()
  self.y, self.next_x = self.y - self.line, self.last_x
end

function window:gap()
  self.y = self.y + self.gap_height
end

-- Draw a part of a long list, by `draw(...)`, or only leave its room where it is out of sight. size: a table that the
-- caller keeps for the part, in which its size is remembered. The sizes of a few are learnt in each frame.
function window:part(size, draw, ...)
  local focused = self.focus > self.next and self.focus <= self.next + (size.controls or 0)
  local height = size.height
  if not height then
    self.learnt = self.learnt + 1
    height = self.learnt > LEARNT and PART_LINES * self.line
  end
  if height and not focused and (self.y + height < 0 or self.y > self.room) then
    self.y, self.next = self.y + height, self.next + (size.controls or 0)
    return nil
  end
  local top, first = self.y, self.next
  local answer = draw(...)
  size.height, size.controls = self.y - top, self.next - first
  return answer
end

function window:_width()
  return gfx.w - 2 * self.margin - self.scroll_bar
end

function window:_place(width)
  if self.next_x and self.next_x + width > self.margin + self:_width() then
    self.y, self.next_x = self.y + self.line, nil
  end
  local x = self.next_x or self.margin
  self.next_x, self.last_x = nil, x + width + self.gap_height
  local y = self.y
  self.y = y + self.line
  return x, y
end

function window:_is_seen(y)
  return y >= 0 and y + self.line <= self.room
end

-- Something that can be pressed: over it, clicked or pressed by key, and in focus. A click gives it the focus.
function window:_control(x, y, width)
  self.next = self.next + 1
  local focused, seen = self.focus == self.next, self:_is_seen(y)
  if focused and self.follow_focus then
    self.follow_focus = false
    if not seen then
      self.scroll = math.max(0, self.scroll + y - self.room // 2)
    end
  end
  local over = seen and gfx.mouse_x >= x and gfx.mouse_x < x + width
  over = over and gfx.mouse_y >= y and gfx.mouse_y < y + self.line - 2
  if over and self.clicked then
    self.focus = self.next
  end
  local pressed = over and self.clicked or focused and self.key == KEY.space
  if focused and seen then
    paint("focus")
    gfx.rect(x - 2, y - 2, width + 4, self.line + 1, 0)
  end
  return over, pressed, focused
end

function window:_write(x, y, line, color)
  if self:_is_seen(y) then
    paint(color)
    gfx.x, gfx.y = x, y + self.line // 8
    gfx.drawstr(line)
  end
end

function window:_fill(x, y, width, color)
  if self:_is_seen(y) then
    paint(color)
    gfx.rect(x, y, width, self.line - 3, 1)
  end
end

-- The key that was pressed and means nothing to the window itself, as a character; nil for none.
function window:character()
  local char = self.key
  return char and char > 32 and char < 127 and string.char(char) or nil
end

-- Whether Space was pressed for nothing in this window: REAPER's own key for playing is meant.
function window:is_space_free()
  return self.key == KEY.space and self.focus == 0
end

window.KEY = KEY
require("ui_gfx_controls").add_to(window)

return window
