-- What stands in a window of `ui_gfx`: text, buttons, check boxes, lists, bars, and the buttons at its bottom.
local require = ...
local text = require("text")

local controls = {}

local function fitted(line, room)
  return text.fitted(line, room, gfx.measurestr)
end

-- Long lines are broken at spaces, and words that are longer than a line wherever it ends.
function controls:text(content, faint)
  local room = math.max(80, self:_width() - (self.next_x and self.next_x - self.margin or 0))
  local line = ""
  local function put()
    local x, y = self:_place((gfx.measurestr(line)))
    self:_write(x, y, fitted(line, room), faint and "faint" or "text")
  end
  for word in content:gmatch("%S+") do
    local longer = line == "" and word or line .. " " .. word
    if line ~= "" and gfx.measurestr(longer) > room then
      put()
      longer = word
    end
    line = longer
    while gfx.measurestr(line) > room and #line > 4 do
      local rest
      line, rest = text.broken(line, room / gfx.measurestr(line))
      put()
      line = rest
    end
  end
  put()
end

function controls:button(label)
  local width = gfx.measurestr(label) + 20
  local x, y = self:_place(width)
  local over, pressed = self:_control(x, y, width)
  self:_fill(x, y, width, over and "hover" or "button")
  self:_write(x + 10, y, label, "text")
  return pressed
end

-- Returns the value, changed or not.
function controls:check(label, value)
  local mark = value and "[x] " or "[  ] "
  local width = math.min(self:_width(), gfx.measurestr(mark .. label) + 12)
  local x, y = self:_place(width)
  local over, pressed = self:_control(x, y, width)
  if over then
    self:_fill(x, y, width, "button")
  end
  self:_write(x + 4, y, fitted(mark .. label, width), "text")
  if pressed then
    return not value
  end
  return value
end

-- A list of which one entry is chosen, in one row: a click opens it, Left and Right go through it.
--
-- Args:    entries: { value, label }, ...
-- Returns: the chosen value, changed or not
function controls:choose(label, entries, chosen)
  local at = 1
  for index, entry in ipairs(entries) do
    at = entry[1] == chosen and index or at
  end
  local x, y = self:_place(self:_width())
  self:_write(x, y, label, "text")
  local left, width = x + self.label, self:_width() - self.label
  local over, pressed, focused = self:_control(left, y, width)
  self:_fill(left, y, width, over and "hover" or "button")
  self:_write(left + 8, y, fitted(entries[at][2], width - 30), "text")
  self:_write(left + width - 18, y, "v", "faint")
  if focused and (self.key == self.KEY.left or self.key == self.KEY.right) then
    at = math.max(1, math.min(#entries, at + (self.key == self.KEY.right and 1 or -1)))
  elseif pressed then
    local lines = {}
    for index, entry in ipairs(entries) do
      lines[index] = (index == at and "!" or "") .. entry[2]:gsub("[|!#<>]", " ")
    end
    gfx.x, gfx.y = left, y + self.line
    local picked = gfx.showmenu(table.concat(lines, "|"))
    at = picked > 0 and picked or at
    self.pressed = false
  end
  return entries[at][1]
end

function controls:bar(fraction, label)
  local width = self:_width()
  local x, y = self:_place(width)
  self:_fill(x, y, width, "button")
  self:_fill(x, y, math.floor(width * fraction), "bar")
  self:_write(x + 6, y, fitted(label, width - 12), "text")
end

-- Buttons at the bottom, whatever the rows above need; to be called last. Return is the first one. Returns the label of
-- the one that was pressed, or nil.
function controls:footer(labels)
  local rows_end = self.y
  self.footer_height = self.line + 2 * self.gap_height
  self.room = gfx.h
  self.y = gfx.h - self.line - self.gap_height
  self.clear(gfx.h - self.footer_height)
  local found = self.key == self.KEY.enter and labels[1] or nil
  for index, label in ipairs(labels) do
    if index > 1 then
      self:beside()
    end
    if self:button(label) then
      found = label
    end
  end
  self.y, self.room = rows_end, gfx.h - self.footer_height
  return found
end

-- Give these to a window's class.
function controls.add_to(window)
  for name, control in pairs(controls) do
    window[name] = name ~= "add_to" and control or nil
  end
end

return controls
