-- A window in ReaImGui, an extension that many have. Nothing here is called without it. It scrolls, and takes keys, by
-- itself; its flags are functions, since their numbers differ between versions.
local window = {}
window.__index = window

local FAINT = 0xA3A39EFF -- of text; TextDisabled would not break lines

function window.available()
  return reaper.APIExists("ImGui_CreateContext")
    and reaper.APIExists("ImGui_TextWrapped")
    and reaper.APIExists("ImGui_BeginCombo")
end

function window.new(title, width, height)
  local context = reaper.ImGui_CreateContext(title)
  return setmetatable({ title = title, context = context, width = width, height = height, open = true }, window)
end

-- Returns false when the user closed the window.
function window:begin()
  if not self.open then
    return false
  end
  reaper.ImGui_SetNextWindowSize(self.context, self.width, self.height, reaper.ImGui_Cond_FirstUseEver())
  self.visible, self.open = reaper.ImGui_Begin(self.context, self.title, true)
  self.number = 0
  return true
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
  if self.visible then
    reaper.ImGui_Spacing(self.context)
  end
end

-- ReaImGui leaves out by itself what is out of sight.
function window:part(_, _, draw)
  return self.visible and draw() or nil
end

function window:text(content, faint)
  if not self.visible then
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
  return self.visible and reaper.ImGui_Button(self.context, self:_name(label))
end

function window:check(label, value)
  if not self.visible then
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
  if not self.visible then
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
  if self.visible then
    reaper.ImGui_ProgressBar(self.context, fraction, -1, 0, label)
  end
end

-- The buttons of the window; Return is the first one. Returns the label of the one that was pressed, or nil.
function window:footer(labels)
  if not self.visible then
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
