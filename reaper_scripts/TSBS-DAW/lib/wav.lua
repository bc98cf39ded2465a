-- Writes a 32-bit float WAV in blocks. The header's lengths are known before: they are what was asked for.
local wav = {}
wav.__index = wav

local PACK = 100 -- values in one call; Lua's stack holds no more than some hundreds

-- Returns a writer, or nil and why.
function wav.create(path, sample_rate, channels, samples)
  local data = samples * channels * 4
  if data + 50 > 0xFFFFFFFF then
    return nil, "it would be longer than a WAV file can be; separate it in parts"
  end
  local file, err = io.open(path, "wb")
  if not file then
    return nil, err
  end
  local fact = ("<c4I4I4"):pack("fact", 4, samples)
  local form = ("<c4I4I2I2I4I4I2I2"):pack(
    "fmt ",
    16,
    3,
    channels,
    sample_rate,
    sample_rate * channels * 4,
    channels * 4,
    32
  )
  local head = ("<c4I4c4"):pack("RIFF", 4 + #form + #fact + 8 + data, "WAVE")
  local self = setmetatable({ file = file, path = path }, wav)
  if not file:write(head, form, fact, ("<c4I4"):pack("data", data)) then
    return self:abandon()
  end
  return self
end

local FORMATS = setmetatable({}, {
  __index = function(known, count)
    known[count] = "<" .. ("f"):rep(count)
    return known[count]
  end,
})

-- Interleaved values, a table of `count` numbers. true, or nil and why.
function wav:write(values, count)
  local parts = {}
  for from = 1, count, PACK do
    local to = math.min(from + PACK - 1, count)
    parts[#parts + 1] = FORMATS[to - from + 1]:pack(table.unpack(values, from, to))
  end
  if not self.file:write(table.concat(parts)) then
    return self:abandon()
  end
  return true
end

function wav:close()
  if not self.file:close() then
    os.remove(self.path)
    return nil, "the disk is full"
  end
  return true
end

function wav:abandon()
  self.file:close()
  os.remove(self.path)
  return nil, "the disk is full"
end

return wav
