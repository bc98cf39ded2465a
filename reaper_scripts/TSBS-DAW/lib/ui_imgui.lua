-- A window in ReaImGui, an extension that many have. Nothing here is called without it.
local window = {}
window.__index = window

local ONCE = 8 -- ImGui's "first time only" for a window's size

function window.available()
  return reaper.APIExists("ImGui_CreateContext") and reaper.APIExists("ImGui_TextWrapped")
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
  reaper.ImGui_SetNextWindowSize(self.context, self.width, self.height, ONCE)
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

function window:text(content, faint)
  if not self.visible then
    return
  elseif faint then
    reaper.ImGui_TextDisabled(self.context, content)
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

function window:choice(label, chosen)
  return self.visible and reaper.ImGui_RadioButton(self.context, self:_name(label), chosen)
end

function window:bar(fraction, label)
  if self.visible then
    reaper.ImGui_ProgressBar(self.context, fraction, -1, 0, label)
  end
end

return window
