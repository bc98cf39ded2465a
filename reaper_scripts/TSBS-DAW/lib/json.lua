-- JSON, as strict as the daemon reads it. null becomes nil; an empty list is `json.list()`, so that it stays a list.
local json = {}

local LIST = { __name = "json list" }
local DEEPEST = 50
local VALUES = 64 -- between two pauses: some hundredths of a millisecond
local QUOTE, COMMA, COLON = ('",:'):byte(1, 3)
local OPEN, CLOSED, OPEN_LIST, CLOSED_LIST = ("{}[]"):byte(1, 4)

function json.list(values)
  return setmetatable(values or {}, LIST)
end

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function quoted(text)
  if not utf8.len(text) then
    error("a name in it is not UTF-8", 0)
  end
  return '"'
    .. text:gsub('[%c"\\\127]', function(char)
      return ESCAPES[char] or ("\\u%04x"):format(char:byte())
    end)
    .. '"'
end

local function number(value)
  if value ~= value or value == math.huge or value == -math.huge then
    error("a number in it is not finite", 0)
  end
  -- The locale may have given the number a comma.
  return math.type(value) == "integer" and ("%d"):format(value) or (("%.17g"):format(value):gsub(",", "."))
end

local encode

local function members(value)
  local keys, parts = {}, {}
  for key in pairs(value) do
    keys[#keys + 1] = key
  end
  table.sort(keys)
  for _, key in ipairs(keys) do
    parts[#parts + 1] = quoted(key) .. ": " .. encode(value[key])
  end
  return "{" .. table.concat(parts, ", ") .. "}"
end

function encode(value)
  local kind = type(value)
  if kind == "string" then
    return quoted(value)
  elseif kind == "number" then
    return number(value)
  elseif kind == "boolean" then
    return tostring(value)
  elseif kind ~= "table" then
    error("a " .. kind .. " cannot be encoded", 0)
  elseif getmetatable(value) ~= LIST and #value == 0 then
    return members(value)
  end
  local parts = {}
  for _, item in ipairs(value) do
    parts[#parts + 1] = encode(item)
  end
  return "[" .. table.concat(parts, ", ") .. "]"
end

-- Returns the text, or nil and why not.
function json.encode(value)
  local ok, text = pcall(encode, value)
  if ok then
    return text
  end
  return nil, text
end

local UNESCAPES = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }

local function fail(at, what)
  error(("%s at character %d"):format(what, at), 0)
end

local function unicode(text, at)
  local high = tonumber(text:match("^%x%x%x%x", at) or fail(at, "a wrong escape"), 16)
  local low = text:match("^\\u([dD][c-fC-F]%x%x)", at + 4)
  if high >= 0xD800 and high < 0xDC00 and low then
    return utf8.char(0x10000 + (high - 0xD800) * 0x400 + tonumber(low, 16) - 0xDC00), at + 10
  end
  return utf8.char(high >= 0xD800 and high < 0xE000 and 0xFFFD or high), at + 4
end

local function string_at(text, at)
  local stop = text:find('[%c"\\]', at + 1) or fail(at + 1, "an open string")
  if text:byte(stop) == QUOTE then
    return text:sub(at + 1, stop - 1), stop + 1
  end
  local parts, from = {}, at + 1
  while true do
    stop = text:find('[%c"\\]', from) or fail(from, "an open string")
    parts[#parts + 1] = text:sub(from, stop - 1)
    local char = text:sub(stop, stop)
    if char == '"' then
      return table.concat(parts), stop + 1
    elseif char ~= "\\" and char ~= "\127" then
      fail(stop, "a control character")
    end
    local escape = text:sub(stop + 1, stop + 1)
    if char == "\127" then
      parts[#parts + 1], from = char, stop + 1
    elseif escape == "u" then
      parts[#parts + 1], from = unicode(text, stop + 2)
    else
      parts[#parts + 1] = UNESCAPES[escape] or fail(stop, "a wrong escape")
      from = stop + 2
    end
  end
end

-- Where the next thing is that is no space; behind the text where nothing is.
local function skip(text, at)
  return text:find("[^ \t\r\n]", at) or #text + 1
end

local value_at

-- What stands between an opening and a closing bracket; `read` takes one element and returns where it ends.
local function each(text, at, closing, pause, read)
  at = skip(text, at + 1)
  if text:byte(at) == closing then
    return at + 1
  end
  while true do
    at = skip(text, read(at))
    local byte = text:byte(at)
    if byte == closing then
      return at + 1
    elseif byte ~= COMMA then
      fail(at, "neither a comma nor " .. string.char(closing))
    elseif pause then
      pause()
    end
    at = skip(text, at + 1)
  end
end

local function object_at(text, at, depth, pause)
  local found = {}
  return found,
    each(text, at, CLOSED, pause, function(from)
      if text:byte(from) ~= QUOTE then
        fail(from, "no name")
      end
      local key, after = string_at(text, from)
      after = skip(text, after)
      if text:byte(after) ~= COLON then
        fail(after, "no colon")
      end
      found[key], after = value_at(text, skip(text, after + 1), depth, pause)
      return after
    end)
end

local function list_at(text, at, depth, pause)
  local found, count = json.list(), 0
  return found,
    each(text, at, CLOSED_LIST, pause, function(from)
      local value, after = value_at(text, from, depth, pause)
      if value ~= nil then
        count = count + 1
        found[count] = value
      end
      return after
    end)
end

local LITERALS = { t = { "true", true }, f = { "false", false }, n = { "null", nil } }

function value_at(text, at, depth, pause)
  local byte = text:byte(at)
  if depth > DEEPEST then
    fail(at, "too deep")
  elseif byte == QUOTE then
    return string_at(text, at)
  elseif byte == OPEN then
    return object_at(text, at, depth + 1, pause)
  elseif byte == OPEN_LIST then
    return list_at(text, at, depth + 1, pause)
  end
  local literal = LITERALS[text:sub(at, at)]
  if literal and text:sub(at, at + #literal[1] - 1) == literal[1] then
    return literal[2], at + #literal[1]
  end
  local digits = text:match("^-?%d+%.?%d*[eE]?[+-]?%d*", at)
  local found = digits and tonumber(digits) or fail(at, "no value")
  return found, at + #digits
end

local function once_in(times, pause)
  local count = 0
  return function()
    count = count + 1
    if count % times == 0 then
      pause()
    end
  end
end

-- Returns the value, or nil and why not. pause: called now and then in a long text, or nil
function json.decode(text, pause)
  pause = pause and once_in(VALUES, pause)
  local ok, value, at = pcall(value_at, text, skip(text, 1), 0, pause)
  if not ok then
    return nil, value
  elseif skip(text, at) <= #text then
    return nil, ("unexpected text at character %d"):format(skip(text, at))
  end
  return value
end

return json
