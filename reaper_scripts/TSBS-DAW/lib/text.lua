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

-- Cut a line that is too long, with an ellipsis. measure: a function that says how long a line is
function text.fitted(line, room, measure)
  while line ~= "" and measure(line) > room do
    line = text.cut(line, math.max(1, (utf8.len(line) or #line) - 2))
    if utf8.len(line) and utf8.len(line) <= 2 then
      break
    end
  end
  return line
end

-- A part of the characters of a long word, a path say: how many of them there is room for, and the rest.
function text.broken(word, part)
  local count = utf8.len(word) and utf8.len(word) or #word
  local kept = math.max(1, math.floor(count * part) - 1)
  local at = utf8.len(word) and utf8.offset(word, kept + 1) or kept + 1
  return word:sub(1, at - 1), word:sub(at)
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
