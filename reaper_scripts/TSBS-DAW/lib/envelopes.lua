-- Takes volume, pan and mute envelopes from one take to another, through the state chunks of their items.
--
-- An audio accessor's samples come before these three; a pitch envelope is in its samples already. REAPER has no
-- function that makes a take envelope, so the blocks are put into the chunk, after the take's source, where REAPER
-- writes them. Point times are seconds from the item's start, times the take's playrate.
local envelopes = {}

local COPIED = { ["<VOLENV"] = true, ["<PANENV"] = true, ["<MUTEENV"] = true }

-- The lines of an item's chunk: calls `visit(line, word, depth, take)` with the line's first word, how deep it is
-- nested (1: a line of the item's or a take's), and the index of the take that it belongs to.
local function each_line(chunk, visit)
  local depth, take = 0, 0
  for line in chunk:gmatch("[^\r\n]+") do
    local word = line:match("^%s*(%S*)")
    if word:sub(1, 1) == "<" then
      depth = depth + 1
    elseif depth == 1 and word == "TAKE" then
      take = take + 1
    end
    visit(line, word, depth, take)
    if word == ">" then
      depth = depth - 1
    end
  end
end

local function chunk_of(item)
  local _, chunk = reaper.GetItemStateChunk(item, "", false)
  return chunk
end

local function index_of(take)
  return math.floor(reaper.GetMediaItemTakeInfo_Value(take, "IP_TAKENUMBER"))
end

-- A number as a project file has it, whatever the locale.
local function number(value)
  return (("%.12g"):format(value):gsub(",", "."))
end

-- Points at new times. What lies before the start is left out, and what it comes to at the start is put there.
local function retimed(points, rate, shift_s)
  local moved, before = {}, nil
  for _, point in ipairs(points) do
    local at = point.at / rate - shift_s
    if at < 0 then
      before = { at = at, value = point.value, rest = point.rest }
    else
      if before and at > 0 then
        local linear = before.rest:match("^%s+0") or before.rest == ""
        local part = linear and -before.at / (at - before.at) or 0
        moved[#moved + 1] = { at = 0, value = before.value + part * (point.value - before.value), rest = before.rest }
      end
      before = nil
      moved[#moved + 1] = { at = at, value = point.value, rest = point.rest }
    end
  end
  if before then
    moved[#moved + 1] = { at = 0, value = before.value, rest = before.rest }
  end
  return moved
end

-- The envelopes of a take, each a list of lines, as they must be for a take that plays the same at rate 1 and begins
-- `shift_s` later; an empty list where there are none.
function envelopes.of(take, shift_s)
  local found = {}
  if reaper.CountTakeEnvelopes(take) == 0 then
    return found
  end
  local item, wanted = reaper.GetMediaItemTake_Item(take), index_of(take)
  local rate = reaper.GetMediaItemTakeInfo_Value(take, "D_PLAYRATE")
  local block, points
  each_line(chunk_of(item), function(line, word, depth, index)
    if depth == 2 and index == wanted and COPIED[word] then
      block, points = { line }, {}
    elseif block and word == "PT" then
      local at, value, rest = line:match("^%s*PT%s+(%S+)%s+(%S+)(.*)$")
      points[#points + 1] = { at = tonumber(at), value = tonumber(value), rest = rest }
    elseif block and depth == 2 and word == ">" then
      for _, point in ipairs(retimed(points, rate, shift_s)) do
        block[#block + 1] = ("PT %s %s%s"):format(number(point.at), number(point.value), point.rest)
      end
      block[#block + 1] = line
      found[#found + 1], block = block, nil
    elseif block and word ~= "EGUID" then
      block[#block + 1] = line
    end
  end)
  return found
end

-- Give a take envelopes. Handles of the item's takes are not valid afterwards.
function envelopes.add(take, found)
  if #found == 0 then
    return
  end
  local item, wanted = reaper.GetMediaItemTake_Item(take), index_of(take)
  local lines = {}
  local function put()
    for _, block in ipairs(found) do
      table.move(block, 1, #block, #lines + 1, lines)
    end
    wanted = -1
  end
  each_line(chunk_of(item), function(line, word, depth, index)
    if depth == 1 and wanted >= 0 and (word == ">" or word == "TAKE" and index > wanted) then
      put()
    end
    lines[#lines + 1] = line
  end)
  assert(reaper.SetItemStateChunk(item, table.concat(lines, "\n") .. "\n", false), "envelopes cannot be set")
end

return envelopes
