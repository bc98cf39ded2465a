-- A window in ReaImGui, an extension that many have. Nothing here is called without it. It scrolls, and takes keys, by
-- itself; its flags are functions, since their numbers differ between versions.
local window = {}
window.__index = window

local FAINT = 0xA3A39EFF -- of text; TextDisabled would not break lines
local LEARNT, PART_HEIGHT = 4, 90 -- parts of a list whose height is learnt in a frame; how high the others are thought

function window.available()
  return reaper.APIExists("ImGui_CreateContext")
    and reaper.APIExists("ImGui_TextWrapped")
    and reaper.APIExists("ImGui_BeginCombo")
    and reaper.APIExists("ImGui_SetCursorPosY")
end

function window.new(title, width, height)
  local context = reaper.ImGui_CreateContext(title)
  local self = { title = title, context = context, width = width, height = height, open = true, drawing = true }
  return setmetatable(self, window)
end

-- Returns false when the user closed the window.
function window:begin()
  if not self.open then
    return false
  end
  reaper.ImGui_SetNextWindowSize(self.context, self.width, self.height, reaper.ImGui_Cond_FirstUseEver())
  self.visible, self.open = reaper.ImGui_Begin(self.context, self.title, true)
  self.number, self.y = 0, nil
  return true
end

-- Whether anything is to be drawn; then it goes below what was left out before it.
function window:_draws()
  if self.visible and self.is_behind then
    self.is_behind = false
    reaper.ImGui_SetCursorPosY(self.context, self.y)
  end
  return self.visible
end

function window:finish()
  if self.visible then
    reaper.ImGui_End(self.context)
  end
end

function window:close()
  self.context = nil -- ReaImGui frees a context that is not used any more
end

-- Equal labels need different names; what follows ## is not shown.
function window:_name(label)
  self.number = self.number + 1
  return ("%s##%d"):format(label, self.number)
end

function window:beside()
  if self.visible then
    reaper.ImGui_SameLine(self.context)
  end
end

function window:gap()
  if self:_draws() then
    reaper.ImGui_Spacing(self.context)
  end
end

-- Draw a part of a long list, as in `ui_gfx`: ReaImGui shows nothing that is out of sight, but every call costs time.
function window:part(size, draw, ...)
  if not self.visible then
    return nil
  elseif not self.y then
    self.y = reaper.ImGui_GetCursorPosY(self.context)
    self.top = reaper.ImGui_GetScrollY(self.context)
    self.bottom, self.learnt = self.top + reaper.ImGui_GetWindowHeight(self.context), 0
  end
  local height = size.height
  if not height then
    self.learnt = self.learnt + 1
    height = self.learnt > LEARNT and PART_HEIGHT
  end
  if height and (self.y + height < self.top or self.y > self.bottom) then
    self.y, self.is_behind = self.y + height, true
    return nil
  end
  local top = self.y
  local answer = self:_draws() and draw(...)
  self.y = reaper.ImGui_GetCursorPosY(self.context)
  size.height = self.y - top
  return answer or nil
end

function window:text(content, faint)
  if not self:_draws() then
    return
  elseif faint then
    reaper.ImGui_PushStyleColor(self.context, reaper.ImGui_Col_Text(), FAINT)
    reaper.ImGui_TextWrapped(self.context, content)
    reaper.ImGui_PopStyleColor(self.context)
  else
    reaper.ImGui_TextWrapped(self.context, content)
  end
end

function window:button(label)
  return self:_draws() and reaper.ImGui_Button(self.context, self:_name(label))
end

function window:check(label, value)
  if not self:_draws() then
    return value
  end
  local changed, new = reaper.ImGui_Checkbox(self.context, self:_name(label), value)
  if changed then
    return new
  end
  return value
end

-- A list of which one entry is chosen. entries: { value, label }, ... Returns the chosen value, changed or not.
function window:choose(label, entries, chosen)
  if not self:_draws() then
    return chosen
  end
  local shown = entries[1][2]
  for _, entry in ipairs(entries) do
    shown = entry[1] == chosen and entry[2] or shown
  end
  if reaper.ImGui_BeginCombo(self.context, self:_name(label), shown) then
    for _, entry in ipairs(entries) do
      if reaper.ImGui_Selectable(self.context, self:_name(entry[2]), entry[1] == chosen) then
        chosen = entry[1]
      end
    end
    reaper.ImGui_EndCombo(self.context)
  end
  return chosen
end

function window:bar(fraction, label)
  if self:_draws() then
    reaper.ImGui_ProgressBar(self.context, fraction, -1, 0, label)
  end
end

-- The buttons of the window; Return is the first one. Returns the label of the one that was pressed, or nil.
function window:footer(labels)
  if not self:_draws() then
    return nil
  end
  local enter = reaper.ImGui_IsKeyPressed(self.context, reaper.ImGui_Key_Enter(), false)
  if reaper.ImGui_IsKeyPressed(self.context, reaper.ImGui_Key_Escape(), false) then
    self.open = false
  end
  local found = enter and labels[1] or nil
  for index, label in ipairs(labels) do
    if index > 1 then
      self:beside()
    end
    if self:button(label) then
      found = label
    end
  end
  return found
end

function window.character()
  return nil -- digits are taken by fields of ReaImGui's own
end

function window.is_space_free()
  return false -- ReaImGui hands keys that it does not use on to REAPER
end

return window
