-- Text for people, and names for files.
local text = {}

-- A path or a name as a sentence may carry it: one line, quoted.
function text.shown(name)
  return "'" .. tostring(name):gsub("%c", " ") .. "'"
end

-- Cut to a number of characters, not of bytes.
function text.cut(line, characters)
  local length = utf8.len(line)
  if not length or length <= characters then
    return line
  end
  return line:sub(1, utf8.offset(line, characters) - 1) .. "…"
end

function text.duration(seconds)
  if seconds < 60 then
    return ("%d s"):format(math.ceil(seconds))
  end
  return ("%d min %02d s"):format(seconds // 60, math.floor(seconds % 60))
end

-- An id that sorts by time and needs no one's consent.
function text.new_id()
  local where = tostring({}):gsub("[^%x]", "")
  local moment = ("%x"):format(math.floor(reaper.time_precise() * 1e6) & 0xFFFFFFFF)
  local chance = ("%04x"):format(math.random(0, 0xFFFF))
  return os.date("!%Y%m%d-%H%M%S", os.time()) .. "-" .. (moment .. where:sub(-6) .. chance)
end

return text
