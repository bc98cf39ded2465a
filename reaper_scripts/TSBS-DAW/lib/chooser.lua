-- The dialog: what is separated, how, and where the stems go. The choice is remembered.
local require = ...
local settings, stem_choice, ui = require("settings"), require("stem_choice"), require("ui")

local chooser = {}

local SOURCES = {
  { "mute", "Mute what was separated; items are split at its ends" },
  { "keep", "Keep the source playing and mute the stems" },
  { "untouched", "Leave both as they are" },
}
local WHATS = {
  { "selected_items", "Selected items" },
  { "time_selection", "Time selection on selected tracks" },
  { "razor_edits", "Razor edits" },
  { "cursor_region", "Region at the edit cursor, on selected tracks" },
  { "regions", "All regions, on selected tracks" },
}
local LAYOUTS = {
  { "children", "On child tracks of the source track, through its effects" },
  { "folder", "In a folder track of their own, with the same effects" },
  { "takes", "As takes of the item" },
}
local RESIDUALS = {
  { "", "Shared among the stems, which then add up to the source" },
  { "separate", "On a track of its own" },
  { "drop", "Left out" },
}
local QUALITIES = {
  { "", "Normal, or what the preset says" },
  { "fast", "Fast: chunks overlap less" },
  { "best", "Best: a little slower" },
}
local REMEMBERED = { "preset", "model", "source", "what", "layout", "residual", "quality" }
local SWITCHES = { "fx", "listen" }
local WIDTH, HEIGHT = 560, 470

local function labelled(list)
  local entries = {}
  for _, entry in ipairs(list or {}) do
    entries[#entries + 1] = { entry.name, entry.name }
  end
  return entries
end

local function draw_preset(window, installed, chosen)
  local preset, model = chosen.preset, chosen.model
  local presets = labelled(installed.presets)
  if #presets > 0 then
    chosen.preset = window:choose("Preset", presets, chosen.preset)
    local entry = stem_choice.named(installed.presets, chosen.preset)
    window:text(entry and entry.description or "", true)
  end
  if #(installed.models or {}) > 1 then
    chosen.model = window:choose("Model", labelled(installed.models), chosen.model)
  end
  if chosen.preset ~= preset or chosen.model ~= model then
    chosen.wanted = stem_choice.by_default(installed, chosen.model, chosen.preset)
  end
end

-- Choices of stems at one click: { value, label, the names that are wanted }.
local function quick_choices(installed, chosen, names)
  local preset = stem_choice.named(installed.presets, chosen.preset)
  local default = stem_choice.by_default(installed, chosen.model, chosen.preset)
  local found = { { "", "Choose below" }, { "*", preset and preset.stems and "As the preset says" or "All", default } }
  local has_rest = false
  for _, name in ipairs(names) do
    has_rest = has_rest or name == "rest"
    if name ~= "rest" then
      found[#found + 1] = { name, ("Only %s"):format(name), { [name] = true } }
    end
  end
  for index = 1, has_rest and #names or 0 do
    local name = names[index]
    if name == "rest" then
      break -- what follows are outputs
    end
    found[#found + 1] = { name .. "+", ("%s and the rest"):format(name), { [name] = true, rest = true } }
  end
  return found
end

-- Check boxes for the stems; the digits 1 to 9 press them.
local function draw_stems(window, installed, chosen, names)
  window:gap()
  local quick = quick_choices(installed, chosen, names)
  local picked = window:choose("Stems", quick, "")
  for _, entry in ipairs(picked ~= "" and quick or {}) do
    chosen.wanted = entry[1] == picked and entry[3] or chosen.wanted
  end
  local digit = tonumber(window:character() or "")
  for index, name in ipairs(names) do
    if index > 1 then
      window:beside()
    end
    local wanted = chosen.wanted[name] == true
    if digit == index then
      wanted = not wanted
    end
    chosen.wanted[name] = window:check(name, wanted)
  end
  window:text("Unchecked stems are not written; rest is their sum.", true)
end

local function draw_rest(window, chosen, note)
  window:gap()
  if note then
    window:text(note, true)
  else
    chosen.what = window:choose("What", WHATS, chosen.what)
    chosen.layout = window:choose("Place", LAYOUTS, chosen.layout)
    chosen.source = window:choose("Source", SOURCES, chosen.source)
  end
  chosen.residual = window:choose("Residual", RESIDUALS, chosen.residual)
  chosen.quality = window:choose("Quality", QUALITIES, chosen.quality)
  if not note then
    window:gap()
    chosen.fx = window:check("Include take effects (renders the item first)", chosen.fx)
    chosen.listen = window:check("Listen to the stems before they are inserted", chosen.listen)
  end
end

local function last_choice(installed)
  local found = {}
  for _, name in ipairs(SWITCHES) do
    found[name] = settings.choice(name) == "yes"
  end
  for _, name in ipairs(REMEMBERED) do
    found[name] = settings.choice(name)
  end
  if installed.models and not stem_choice.named(installed.models, found.model) then
    found.model = "default" -- it was removed meanwhile
  end
  found.wanted = stem_choice.by_default(installed, found.model, found.preset)
  local names = settings.chosen_stems()
  if names then
    found.wanted = {}
    for _, name in ipairs(names) do
      found.wanted[name] = true
    end
  end
  return found
end

-- Returns nil and a sentence if it cannot be separated so.
local function remember(installed, chosen, names)
  local problem = stem_choice.problem(installed, chosen.model, chosen.preset, chosen.wanted)
  if problem then
    return nil, problem
  end
  local default = stem_choice.by_default(installed, chosen.model, chosen.preset)
  local stems, is_default = {}, true
  for _, name in ipairs(names) do
    stems[#stems + 1] = chosen.wanted[name] and name or nil
    is_default = is_default and (chosen.wanted[name] == true) == (default[name] == true)
  end
  for _, name in ipairs(REMEMBERED) do
    settings.choose(name, chosen[name])
  end
  for _, name in ipairs(SWITCHES) do
    settings.choose(name, chosen[name] and "yes" or "no")
  end
  settings.choose("stems", is_default and "" or table.concat(stems, "/"))
  return true
end

-- Ask, then call `go` unless the user closed the window. note: a line in the place of what to separate and what becomes
-- of the source, where there is no choice.
function chooser.ask(title, go, note)
  local installed, err = settings.installed()
  if not installed then
    ui.open(title, WIDTH, 160, function(window)
      window:text(err)
      return window:footer({ "Close" }) == nil
    end)
    return
  end
  local chosen = last_choice(installed)
  local decided, complaint = false, nil
  ui.open(title, WIDTH, HEIGHT, function(window)
    draw_preset(window, installed, chosen)
    local names = stem_choice.offered(installed, chosen.model, chosen.preset)
    draw_stems(window, installed, chosen, names)
    draw_rest(window, chosen, note)
    if complaint then
      window:text(complaint)
    end
    local pressed = window:footer({ "Separate", "Cancel" })
    if pressed == "Separate" then
      decided, complaint = remember(installed, chosen, names)
    end
    return not decided and pressed ~= "Cancel"
  end, function()
    if decided then
      go()
    end
  end)
end

return chooser
