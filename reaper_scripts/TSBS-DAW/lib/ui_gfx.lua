-- A window in REAPER's own gfx.
local require = ...
local text = require("text")

local window = {}
window.__index = window

local LINE, MARGIN, GAP = 24, 10, 8
local FONT, FONT_SIZE = "Arial", 15
local COLORS = {
  back = { 0.16, 0.16, 0.17 },
  text = { 0.90, 0.90, 0.88 },
  faint = { 0.60, 0.60, 0.58 },
  button = { 0.30, 0.31, 0.33 },
  hover = { 0.38, 0.40, 0.43 },
  bar = { 0.20, 0.55, 0.60 },
}

local function paint(name)
  local color = COLORS[name]
  gfx.set(color[1], color[2], color[3], 1)
end

function window.new(title, width, height)
  gfx.init(title, width, height, 0)
  gfx.setfont(1, FONT, FONT_SIZE)
  return setmetatable({ pressed = false }, window)
end

-- Returns false when the user closed the window: by its corner, or by Escape.
function window:begin()
  local char = gfx.getchar()
  if char < 0 or char == 27 then
    return false
  end
  local down = gfx.mouse_cap & 1 == 1
  self.clicked, self.pressed = self.pressed and not down, down
  self.y, self.next_x = MARGIN, nil
  paint("back")
  gfx.rect(0, 0, gfx.w, gfx.h, 1)
  return true
end

function window.finish()
  gfx.update()
end

function window.close()
  gfx.quit()
end

-- The next thing goes to the right of the one before.
function window:beside()
  self.y, self.next_x = self.y - LINE, self.last_x
end

function window:gap()
  self.y = self.y + GAP
end

function window:_place(width)
  local x = self.next_x or MARGIN
  self.next_x, self.last_x = nil, x + width + GAP
  local y = self.y
  self.y = y + LINE
  return x, y
end

function window:_hit(x, y, width)
  local over = gfx.mouse_x >= x and gfx.mouse_x < x + width and gfx.mouse_y >= y and gfx.mouse_y < y + LINE - 2
  return over, over and self.clicked
end

local function write(x, y, line, color)
  paint(color)
  gfx.x, gfx.y = x, y + 3
  gfx.drawstr(line)
end

-- Long lines are broken at spaces.
function window:text(content, faint)
  local room = math.max(80, gfx.w - (self.next_x or MARGIN) - MARGIN)
  local line = ""
  local function put()
    local x, y = self:_place((gfx.measurestr(line)))
    write(x, y, line, faint and "faint" or "text")
  end
  for word in content:gmatch("%S+") do
    local longer = line == "" and word or line .. " " .. word
    if line ~= "" and gfx.measurestr(longer) > room then
      put()
      longer = word
    end
    line = longer
  end
  put()
end

function window:button(label)
  local width = gfx.measurestr(label) + 20
  local x, y = self:_place(width)
  local over, clicked = self:_hit(x, y, width)
  paint(over and "hover" or "button")
  gfx.rect(x, y, width, LINE - 3, 1)
  write(x + 10, y, label, "text")
  return clicked
end

function window:_row(mark, label)
  local width = gfx.w - 2 * MARGIN
  local x, y = self:_place(width)
  local over, clicked = self:_hit(x, y, width)
  if over then
    paint("button")
    gfx.rect(x, y, width, LINE - 3, 1)
  end
  write(x + 4, y, mark, "text")
  write(x + 34, y, label, "text")
  return clicked
end

-- Returns the value, changed or not.
function window:check(label, value)
  if self:_row(value and "[x]" or "[ ]", label) then
    return not value
  end
  return value
end

-- Returns whether it was chosen now.
function window:choice(label, chosen)
  return self:_row(chosen and "(o)" or "( )", label)
end

function window:bar(fraction, label)
  local width = gfx.w - 2 * MARGIN
  local x, y = self:_place(width)
  paint("button")
  gfx.rect(x, y, width, LINE - 3, 1)
  paint("bar")
  gfx.rect(x, y, math.floor(width * fraction), LINE - 3, 1)
  write(x + 6, y, text.cut(label, 90), "text")
end

return window
