-- Choose a preset, the stems to put back, and what becomes of the source. The choice is remembered.
local require = ...
local settings, ui = require("settings"), require("ui")

local chooser = {}

local SOURCES = {
  { "mute", "mute what was taken apart; where that is a part of an item, the item is cut there" },
  { "keep", "keep it playing, and mute the folder of stems" },
  { "untouched", "leave both as they are" },
}
local WHATS = {
  { "selected_items", "the selected items" },
  { "time_selection", "the time selection, on the selected tracks" },
  { "regions", "every region, on the selected tracks" },
}
local ROWS = 24 -- of a line's height

local function outputs_of(installed, preset)
  local names = {}
  for _, name in ipairs(installed.stems or {}) do
    names[#names + 1] = name
  end
  for _, known in ipairs(installed.presets or {}) do
    for _, name in ipairs(known.name == preset and known.outputs or {}) do
      names[#names + 1] = name
    end
  end
  return names
end

local function draw_choices(window, label, entries, chosen, name)
  window:gap()
  window:text(label)
  for _, entry in ipairs(entries) do
    if window:choice(entry[2], chosen[name] == entry[1]) then
      chosen[name] = entry[1]
    end
  end
end

local function draw_presets(window, installed, chosen)
  window:text("Preset")
  for _, preset in ipairs(installed.presets or {}) do
    if window:choice(preset.name .. ": " .. preset.description, chosen.preset == preset.name) then
      chosen.preset, chosen.without = preset.name, {}
    end
  end
end

local function draw_stems(window, names, chosen)
  window:gap()
  window:text("Tracks")
  for _, name in ipairs(names) do
    chosen.without[name] = not window:check(name, not chosen.without[name])
  end
end

local function draw_rest(window, chosen, note)
  if note then
    window:text(note, true)
    return
  end
  draw_choices(window, "What", WHATS, chosen, "what")
  draw_choices(window, "Source", SOURCES, chosen, "source")
  chosen.fx = window:check("with take effects (renders, which takes a moment)", chosen.fx)
end

local function last_choice(names)
  local stems, without = settings.chosen_stems(), {}
  for _, name in ipairs(stems and names or {}) do
    without[name] = true
  end
  for _, name in ipairs(stems or {}) do
    without[name] = nil
  end
  local fx = settings.choice("fx") == "yes"
  local found = { fx = fx, without = without }
  for _, name in ipairs({ "preset", "source", "what" }) do
    found[name] = settings.choice(name)
  end
  return found
end

local function remember(chosen, names)
  local stems = {}
  for _, name in ipairs(names) do
    stems[#stems + 1] = not chosen.without[name] and name or nil
  end
  for _, name in ipairs({ "preset", "source", "what" }) do
    settings.choose(name, chosen[name])
  end
  settings.choose("fx", chosen.fx and "yes" or "no")
  settings.choose("stems", #stems < #names and table.concat(stems, "/") or "")
  return #stems > 0
end

-- Ask, then call `go` unless the user closed the window. note: a line in the place of what to separate and what becomes
-- of the source, where there is no choice.
function chooser.ask(title, go, note)
  local installed, err = settings.installed()
  if not installed then
    ui.open(title, 520, 160, function(window)
      window:text(err)
    end)
    return
  end
  local chosen = last_choice(outputs_of(installed, settings.choice("preset")))
  local rows = #(installed.presets or {}) + (note and 14 or 22)
  local decided = false
  ui.open(title, 640, rows * ROWS, function(window)
    local names = outputs_of(installed, chosen.preset)
    draw_presets(window, installed, chosen)
    draw_stems(window, names, chosen)
    draw_rest(window, chosen, note)
    window:gap()
    decided = window:button("Separate") and remember(chosen, names)
    return not decided
  end, function()
    if decided then
      go()
    end
  end)
end

return chooser
