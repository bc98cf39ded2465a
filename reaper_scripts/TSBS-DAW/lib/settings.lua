-- What `tsbs-daw reaper install` wrote down for this installation, and what the user chose last.
local require = ...
local files, json, text = require("files"), require("json"), require("text")

local settings = {}

local SECTION = "TSBS-DAW"
local SCHEMA = 1

local LEAST_VERSION = 6

-- spool: the folder that the daemon looks into. start: the command that starts a daemon. presets: name, description.
function settings.installed()
  local version = reaper.GetAppVersion()
  if (tonumber(version:match("^%d+")) or LEAST_VERSION) < LEAST_VERSION then
    return nil, ("tsbs-daw needs REAPER %d or newer, and this is %s; update REAPER."):format(LEAST_VERSION, version)
  end
  local path = files.join(reaper.GetResourcePath(), "Data/TSBS-DAW/installed.json")
  local content = files.read(path)
  local found, err
  if content then
    found, err = json.decode(content)
  end
  if type(found) ~= "table" or found.schema ~= SCHEMA or type(found.spool) ~= "string" then
    local why = content and (err or "it is from another version") or "it is not there"
    return nil,
      ("%s cannot be used (%s); run tsbs-daw: setup, or run `tsbs-daw reaper install` once."):format(
        text.shown(path),
        why
      )
  end
  return found
end

local DEFAULTS = {
  preset = "none",
  source = "mute",
  fx = "no",
  stems = "",
  model = "default",
  what = "selected_items",
  layout = "children",
  residual = "",
  quality = "",
  listen = "no",
}

-- A choice that was made before: preset, source (mute, keep, untouched), fx (yes, no), stems (names, or "" for all),
-- what (a function of `selection`), layout (children, folder, takes), residual ("", separate, drop), quality ("",
-- fast, best),
-- listen (yes, no).
function settings.choice(name)
  local value = reaper.GetExtState(SECTION, name)
  return value ~= "" and value ~= "-" and value or DEFAULTS[name]
end

function settings.choose(name, value)
  reaper.SetExtState(SECTION, name, value ~= "" and value or "-", true)
end

-- A word between the scripts of this REAPER, forgotten when it ends.
function settings.word(name, value)
  if value then
    reaper.SetExtState(SECTION, name, value, false)
    return value
  end
  return reaper.GetExtState(SECTION, name)
end

local LINES = 12

-- Sentences for the window of jobs, in the place of those before; or after them.
function settings.say(sentences, after)
  local lines = {}
  for line in (after and settings.word("said") or ""):gmatch("[^\n]+") do
    lines[#lines + 1] = line
  end
  for _, sentence in ipairs(sentences) do
    lines[#lines + 1] = sentence
  end
  if #lines > LINES then
    lines[LINES] = ("... and %d more like these."):format(#lines - LINES + 1)
  end
  settings.word("said", table.concat(lines, "\n", 1, math.min(#lines, LINES)))
end

-- The names of the tracks that the user wants, or nil for all.
function settings.chosen_stems()
  local names = json.list()
  for name in settings.choice("stems"):gmatch("[^/]+") do
    names[#names + 1] = name
  end
  return #names > 0 and names or nil
end

return settings
