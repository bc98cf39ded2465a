-- Renders an item with its take FX, by REAPER's own render. It blocks, as every render does, so it is only done when
-- the user asks for the effects; every setting and the selection are put back, even after an error.
local require = ...
local text = require("text")

local render = {}

local RENDER_AS_SET = 42230 -- "Render project, using the most recent render settings, auto-close render dialog"
local FLOAT_WAV = "ZXZhdyAAAA==" -- REAPER's name for a 32-bit float WAV

local NUMBERS = {
  RENDER_SETTINGS = 32, -- selected items
  RENDER_BOUNDSFLAG = 4, -- as long as they are
  RENDER_SRATE = 0, -- the project's
  RENDER_TAILFLAG = 0,
  RENDER_TAILMS = 0,
  RENDER_ADDTOPROJ = 0,
  RENDER_DITHER = 0,
  RENDER_NORMALIZE = 0,
}

local function set_numbers(proj, values)
  local before = {}
  for name, value in pairs(values) do
    before[name] = reaper.GetSetProjectInfo(proj, name, 0, false)
    reaper.GetSetProjectInfo(proj, name, value, true)
  end
  return before
end

local function set_strings(proj, values)
  local before = {}
  for name, value in pairs(values) do
    local _, known = reaper.GetSetProjectInfo_String(proj, name, "", false)
    before[name] = known
    reaper.GetSetProjectInfo_String(proj, name, value, true)
  end
  return before
end

local function select_only(proj, chosen)
  local before = {}
  for index = 0, reaper.CountSelectedMediaItems(proj) - 1 do
    before[index + 1] = reaper.GetSelectedMediaItem(proj, index)
  end
  reaper.SelectAllMediaItems(proj, false)
  for _, item in ipairs(chosen) do
    reaper.SetMediaItemSelected(item, true)
  end
  return before
end

-- Returns true, or nil and a sentence. Called from one deferred tick.
-- channels: how many the item has, at least 2
function render.item(proj, item, folder, name, channels)
  local numbers, strings, selection
  reaper.PreventUIRefresh(1)
  local ok, err = pcall(function()
    local values = { RENDER_CHANNELS = channels }
    for key, value in pairs(NUMBERS) do
      values[key] = value
    end
    numbers = set_numbers(proj, values)
    strings = set_strings(proj, {
      RENDER_FILE = folder,
      RENDER_PATTERN = name,
      RENDER_FORMAT = FLOAT_WAV,
      RENDER_FORMAT2 = "", -- or a second file appears beside it
    })
    selection = select_only(proj, { item })
    reaper.Main_OnCommandEx(RENDER_AS_SET, 0, proj)
  end)
  if selection then
    select_only(proj, selection)
  end
  set_strings(proj, strings or {})
  set_numbers(proj, numbers or {})
  reaper.PreventUIRefresh(-1)
  if not ok then
    return nil, ("The item cannot be rendered to %s (%s)."):format(text.shown(folder), tostring(err))
  end
  return true
end

return render
