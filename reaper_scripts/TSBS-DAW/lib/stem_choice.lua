-- The stems that a model and a preset offer, and which of them are asked for.
--
-- Dry stems come from the model and are written only when they are asked for; `rest` is the sum of those that are not.
-- Outputs come from the preset and are always made, so that one that is not wanted is left out at the insertion.
local require = ...
local json = require("json")

local stem_choice = {}

local REST, DRY = "rest", " (dry)"

function stem_choice.named(list, name)
  for _, entry in ipairs(list or {}) do
    if entry.name == name then
      return entry
    end
  end
  return nil
end

local function of_model(installed, model)
  local entry = stem_choice.named(installed.models, model)
  return entry and entry.stems or installed.stems or {}
end

local function outputs_of(installed, preset)
  local entry = stem_choice.named(installed.presets, preset)
  return entry and entry.outputs or {}
end

local function set_of(list)
  local found = {}
  for _, name in ipairs(list) do
    found[name] = true
  end
  return found
end

-- What the files of a separation are called, in their order: the model's stems, their rest, the preset's outputs. A
-- stem beside an output of its name is called "vocals (dry)".
function stem_choice.offered(installed, model, preset)
  local dry, outputs, names = of_model(installed, model), outputs_of(installed, preset), {}
  local taken = {}
  for _, name in ipairs(outputs) do
    taken[name:lower()] = true
  end
  for _, name in ipairs(dry) do
    names[#names + 1] = taken[name:lower()] and name .. DRY or name
  end
  if #dry > 2 and not taken[REST] then
    names[#names + 1] = REST
  end
  return table.move(outputs, 1, #outputs, #names + 1, names)
end

-- The name that the model has for a dry stem of an earlier job; "rest" for a sum; nil for what is neither.
local function model_name(name, known)
  local bare = name:gsub(" %(dry%)$", "")
  if known[bare] or bare == REST then
    return bare
  end
  return known[bare:match("^no_(.+)$") or ""] and REST or nil
end

-- What is written where nothing else is asked for: a set of names.
function stem_choice.by_default(installed, model, preset)
  local entry, known = stem_choice.named(installed.presets, preset), set_of(of_model(installed, model))
  local dry = set_of(entry and entry.stems or of_model(installed, model))
  local found = set_of(outputs_of(installed, preset))
  for _, name in ipairs(stem_choice.offered(installed, model, preset)) do
    found[name] = found[name] or dry[model_name(name, known) or ""]
  end
  return found
end

-- Why a choice cannot be separated, as a sentence; nil if it can. wanted: a set of names
function stem_choice.problem(installed, model, preset, wanted)
  local known, outputs = set_of(of_model(installed, model)), set_of(outputs_of(installed, preset))
  local chosen, missing, any = 0, 0, false
  for _, name in ipairs(stem_choice.offered(installed, model, preset)) do
    any = any or wanted[name] == true
    if not outputs[name] and known[model_name(name, known)] then
      chosen, missing = chosen + (wanted[name] and 1 or 0), missing + (wanted[name] and 0 or 1)
    end
  end
  if not any then
    return "Choose at least one stem."
  elseif wanted[REST] and not outputs[REST] and (chosen == 0 or missing == 0) then
    return "The rest is the sum of the stems that are not chosen: choose at least one stem, but not all."
  end
  return nil
end

-- The dry stems that a job has to write for the names that are wanted, as `delivery.stems` has them; nil: the preset's
-- own choice, which is also taken where the model has none of these names any more.
function stem_choice.to_write(installed, model, preset, names)
  if not names then
    return nil
  end
  local dry, wanted = of_model(installed, model), {}
  local known, outputs, is_output = set_of(dry), set_of(outputs_of(installed, preset)), false
  for _, name in ipairs(names) do
    is_output = is_output or outputs[name] == true
    wanted[not outputs[name] and model_name(name, known) or ""] = true
  end
  local found = json.list()
  for _, name in ipairs(dry) do
    found[#found + 1] = wanted[name] and name or nil
  end
  if #found == 0 and not is_output then
    return nil
  elseif wanted[REST] and #found > 0 and #found < #dry then
    found[#found + 1] = REST
  end
  return found
end

-- What to separate again: the names that were chosen, and those whose media is replaced.
--
-- Args:    chosen: a list, or nil for what is written by default; replaced: a set of names
-- Returns: a list; nil for what is written by default
function stem_choice.again(installed, preset, chosen, replaced)
  local names, known, has_rest = json.list(), set_of(chosen or {}), false
  for name in pairs(replaced) do
    has_rest = has_rest or name == REST or name:match("^no_%S+$") ~= nil
  end
  if not chosen and not has_rest then
    return nil -- all stems: a rest beside them would be nothing
  end
  for _, name in ipairs(chosen or outputs_of(installed, preset)) do
    names[#names + 1], known[name] = name, true
  end
  for name in pairs(replaced) do
    names[#names + 1] = not known[name] and name or nil
  end
  return names
end

-- Of the stems of a result those that a ticket is to put into the project. What is dry was written because it was asked
-- for, where the job named its stems.
function stem_choice.wanted(ticket, made)
  if not ticket.stems then
    return made
  end
  local chosen, found = set_of(ticket.stems), {}
  local named = ticket.job.delivery and ticket.job.delivery.stems ~= nil
  for _, stem in ipairs(made) do
    local is_dry = named and stem.kind ~= "output"
    found[#found + 1] = (is_dry or chosen[stem.name]) and stem or nil
  end
  return found
end

return stem_choice
