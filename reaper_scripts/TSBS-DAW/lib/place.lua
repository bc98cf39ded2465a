-- Where stems go: beside their source, wherever that is by now.
local require = ...
local project = require("project")

local place = {}

-- The take that was read, if the item has it still; else the one that is heard; nil where there is none.
local function take_of(proj, ticket, item)
  local take = ticket.take and reaper.GetMediaItemTakeByGUID(proj, ticket.take)
  if take and reaper.GetMediaItemTake_Item(take) == item then
    return take
  end
  return reaper.GetActiveTake(item)
end

-- Where the stems go. The item is followed: where it was moved to, and what is left of it when it was trimmed. With
-- another rate than it had when it was read, its stems keep the old one. A portion stays whole: its item may have been
-- cut by the delivery of another one.
function place.of(proj, ticket, item, track)
  local at, length = ticket.position_s, ticket.length_s
  if not item then
    return { track = track, position = at, length = length, offset = ticket.lead_s or 0 }
  end
  local take = take_of(proj, ticket, item)
  local start = reaper.GetMediaItemInfo_Value(item, "D_POSITION")
  at = start + ticket.from_s
  if
    take
    and project.take_guid(take) == ticket.take
    and reaper.GetMediaItemTakeInfo_Value(take, "D_PLAYRATE") == ticket.playrate
  then
    at = at - (reaper.GetMediaItemTakeInfo_Value(take, "D_STARTOFFS") - ticket.offset_s) / ticket.playrate
  end
  local head = math.max(0, start - at)
  local tail = math.max(0, at + length - start - reaper.GetMediaItemInfo_Value(item, "D_LENGTH"))
  if ticket.partial or head < 1e-9 and tail < 1e-9 or head + tail >= length then
    head, tail = 0, 0 -- all of it; also where nothing of it is left
  end
  local offset = head + (ticket.lead_s or 0)
  return {
    track = reaper.GetMediaItemTrack(item),
    item = item,
    take = take,
    position = at + head,
    length = length - head - tail,
    offset = offset,
  }
end

return place
