-- The documents of the spool, see PROTOCOL.md: how they are written, and which of them are understood.
local require = ...
local files, json, text = require("files"), require("json"), require("text")

local protocol = {}

-- Version 2 is asked for where it is needed: its result names the analysis.
protocol.SCHEMA, protocol.LATEST = 1, 2

-- What is to be different from the preset's own delivery, or nil. written: the dry stems to write, or nil
local function delivery(options, written)
  if options.analysis then
    return { analysis = true, sessions = json.list(), stems = json.list() }
  elseif written or options.residual or options.quality then
    return { stems = written, residual = options.residual, quality = options.quality }
  end
  return nil
end

-- A request. `deliver` comes back with the result; the source is named when it is there.
function protocol.job(id, output, song, options, written, deliver)
  return {
    schema = options.analysis and protocol.LATEST or protocol.SCHEMA,
    id = id,
    output = output,
    song = song,
    preset = options.preset,
    model = options.model,
    delivery = delivery(options, written),
    origin = "reaper",
    priority = "interactive",
    deliver = deliver,
  }
end

-- A document of the daemon's. nil alone: it is not there; nil and a sentence: it cannot be used. pause: as for `json`
function protocol.read(path, pause)
  local content = files.read(path)
  if not content then
    return nil
  end
  local found, err = json.decode(content, pause)
  if type(found) ~= "table" then
    return nil, ("%s is damaged (%s); run the job again."):format(text.shown(path), err or "no object")
  elseif found.schema ~= protocol.SCHEMA and found.schema ~= protocol.LATEST then
    return nil,
      ("%s has schema %s, and these scripts understand schema %d and %d; update whichever of the two is older."):format(
        text.shown(path),
        tostring(found.schema),
        protocol.SCHEMA,
        protocol.LATEST
      )
  end
  return found
end

local function wrong_stem(stem)
  return type(stem) ~= "table" or type(stem.name) ~= "string" or type(stem.path) ~= "string"
end

-- Whether a result that says "done" holds what is needed to put it into a project. true, or nil and a sentence.
function protocol.check_done(result)
  local wrong = type(result.stems) ~= "table" or #result.stems == 0
  wrong = wrong or math.type(result.samples) ~= "integer" or math.type(result.sample_rate) ~= "integer"
  wrong = wrong or result.samples < 1 or result.sample_rate < 1
  for _, stem in ipairs(wrong and {} or result.stems) do
    wrong = wrong or wrong_stem(stem)
  end
  if wrong then
    return nil, "The result does not say where its stems are; run the job again."
  end
  return true
end

-- "#rrggbb" as three numbers; grey for anything else.
function protocol.color(code)
  local red, green, blue = tostring(code):match("^#(%x%x)(%x%x)(%x%x)$")
  if not red then
    return 128, 128, 128
  end
  return tonumber(red, 16), tonumber(green, 16), tonumber(blue, 16)
end

return protocol
