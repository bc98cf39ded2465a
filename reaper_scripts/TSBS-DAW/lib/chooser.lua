-- The dialog: what is separated, how, and where the stems go. The choice is remembered.
local require = ...
local settings, ui = require("settings"), require("ui")

local chooser = {}

local SOURCES = {
  { "mute", "Mute what was separated; part of an item is cut out" },
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
  { "children", "Below the source track, through its effects" },
  { "folder", "In a folder of their own, with the same effects" },
  { "takes", "As takes of the item" },
}
local REMEMBERED = { "preset", "model", "source", "what", "layout" }
local SWITCHES = { "fx", "null", "listen" }
local WIDTH, HEIGHT = 560, 440

local function named(list, name)
  for _, entry in ipairs(list or {}) do
    if entry.name == name then
      return entry
    end
  end
  return nil
end

-- What a preset gives with a model: the model's stems, then the preset's outputs.
local function outputs_of(installed, chosen)
  local model, preset = named(installed.models, chosen.model), named(installed.presets, chosen.preset)
  local names = {}
  for _, name in ipairs(model and model.stems or installed.stems or {}) do
    names[#names + 1] = name
  end
  for _, name in ipairs(preset and preset.outputs or {}) do
    names[#names + 1] = name
  end
  return names
end

local function labelled(list)
  local entries = {}
  for _, entry in ipairs(list or {}) do
    entries[#entries + 1] = { entry.name, entry.name }
  end
  return entries
end

local function draw_preset(window, installed, chosen)
  local before = chosen.preset
  local presets = labelled(installed.presets)
  if #presets > 0 then
    chosen.preset = window:choose("Preset", presets, chosen.preset)
    local preset = named(installed.presets, chosen.preset)
    window:text(preset and preset.description or "", true)
  end
  if chosen.preset ~= before then
    chosen.without = {}
  end
  if #(installed.models or {}) > 1 then
    local model = chosen.model
    chosen.model = window:choose("Model", labelled(installed.models), chosen.model)
    chosen.without = chosen.model == model and chosen.without or {}
  end
end

-- Check boxes for the stems; the digits 1 to 9 press them. A preset may have none that the model lacks.
local function draw_stems(window, names, chosen)
  window:gap()
  local quick = { { "", "Choose below" }, { "*", "All of them" } }
  for _, name in ipairs(names) do
    quick[#quick + 1] = { name, "Only " .. name }
  end
  local picked = window:choose("Stems", quick, "")
  if picked ~= "" then
    for _, name in ipairs(names) do
      chosen.without[name] = picked ~= "*" and picked ~= name
    end
  end
  local digit = tonumber(window:character() or "")
  for index, name in ipairs(names) do
    if index > 1 then
      window:beside()
    end
    local wanted = not chosen.without[name]
    if digit == index then
      wanted = not wanted
    end
    chosen.without[name] = not window:check(name, wanted)
  end
  window:text("All stems are made, which takes the same time; those that are checked are inserted.", true)
end

local function draw_rest(window, chosen, note)
  window:gap()
  if note then
    window:text(note, true)
  else
    chosen.what = window:choose("What", WHATS, chosen.what)
    chosen.layout = window:choose("Put stems", LAYOUTS, chosen.layout)
    chosen.source = window:choose("Source", SOURCES, chosen.source)
    window:gap()
    chosen.fx = window:check("Include take effects (renders the item first)", chosen.fx)
    chosen.listen = window:check("Listen to the stems before they are inserted", chosen.listen)
  end
  chosen.null = window:check("Stems add up to the source exactly", chosen.null)
end

local function last_choice(installed)
  local found = { without = {} }
  for _, name in ipairs(SWITCHES) do
    found[name] = settings.choice(name) == "yes"
  end
  for _, name in ipairs(REMEMBERED) do
    found[name] = settings.choice(name)
  end
  if installed.models and not named(installed.models, found.model) then
    found.model = "default" -- it was removed meanwhile
  end
  local stems = settings.chosen_stems()
  for _, name in ipairs(stems and outputs_of(installed, found) or {}) do
    found.without[name] = true
  end
  for _, name in ipairs(stems or {}) do
    found.without[name] = nil
  end
  return found
end

local function remember(chosen, names)
  local stems = {}
  for _, name in ipairs(names) do
    stems[#stems + 1] = not chosen.without[name] and name or nil
  end
  if #stems == 0 then
    return false
  end
  for _, name in ipairs(REMEMBERED) do
    settings.choose(name, chosen[name])
  end
  for _, name in ipairs(SWITCHES) do
    settings.choose(name, chosen[name] and "yes" or "no")
  end
  settings.choose("stems", #stems < #names and table.concat(stems, "/") or "")
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
    local names = outputs_of(installed, chosen)
    draw_preset(window, installed, chosen)
    draw_stems(window, names, chosen)
    draw_rest(window, chosen, note)
    if complaint then
      window:text(complaint)
    end
    local pressed = window:footer({ "Separate", "Cancel" })
    if pressed == "Separate" then
      decided = remember(chosen, names)
      complaint = not decided and "Choose at least one stem." or nil
    end
    return not decided and pressed ~= "Cancel"
  end, function()
    if decided then
      go()
    end
  end)
end

return chooser
