-- Mutes the part of a source that was taken apart: its items are cut at the bounds, and what lies between is muted.
-- Called by `insert`, inside its undo step.
local require = ...
local sources, text = require("source"), require("text")

local silencing = {}

local EDGE_S = 1e-6 -- a bound this near to an item's end is its end
local LOCKED = 1
local STAYS = "%s is %s, so it was not cut and keeps playing; mute it by hand."
local CHANGED = "%s has changed since it was read, so no part of it was muted."

local FADES = {
  { "D_FADEINLEN", "D_FADEINLEN_AUTO", "C_FADEINSHAPE", "D_FADEINDIR" },
  { "D_FADEOUTLEN", "D_FADEOUTLEN_AUTO", "C_FADEOUTSHAPE", "D_FADEOUTDIR" },
}

local function value(item, name)
  return reaper.GetMediaItemInfo_Value(item, name)
end

-- No fade at an end: 1 the beginning, 2 the end.
function silencing.no_fade(item, which)
  reaper.SetMediaItemInfo_Value(item, FADES[which][1], 0)
  reaper.SetMediaItemInfo_Value(item, FADES[which][2], -1)
end

local function fade_s(item, which)
  return math.max(value(item, FADES[which][1]), value(item, FADES[which][2]))
end

local function name_of(item)
  return text.shown(reaper.GetTakeName(reaper.GetActiveTake(item)))
end

-- Where an item would have to be cut: nil for a bound outside of it.
local function cuts_in(item, from_s, to_s)
  local starts = value(item, "D_POSITION")
  local ends = starts + value(item, "D_LENGTH")
  return from_s > starts + EDGE_S and from_s or nil, to_s < ends - EDGE_S and to_s or nil, starts, ends
end

-- Why an item is left alone, as a part of a sentence; nil if there is no reason to.
local function reason(item, from_s, to_s)
  local first, second, starts, ends = cuts_in(item, from_s, to_s)
  if math.floor(value(item, "C_LOCK")) & LOCKED ~= 0 then
    return "locked"
  elseif not (first or second) then
    return nil
  elseif value(item, "I_GROUPID") ~= 0 then
    return "in a group"
  end
  for _, bound in ipairs({ first or second, second }) do
    if bound < starts + fade_s(item, 1) - EDGE_S or bound > ends - fade_s(item, 2) + EDGE_S then
      return "in the middle of a fade there"
    end
  end
  return nil
end

local function saved_fades(item)
  local found = {}
  for which, names in ipairs(FADES) do
    found[which] = {}
    for _, name in ipairs(names) do
      found[which][name] = value(item, name)
    end
  end
  return found
end

-- The piece of an item between two moments. The outer ends keep their fades; the cuts have none, so that source, stems
-- and source follow each other without a gap.
local function cut(item, from_s, to_s)
  local fades = saved_fades(item)
  local first, second = cuts_in(item, from_s, to_s)
  local pieces, middle = { item }, item
  if first then
    middle = assert(reaper.SplitMediaItem(item, first), "an item cannot be split")
    pieces[2] = middle
  end
  if second then
    pieces[#pieces + 1] = assert(reaper.SplitMediaItem(middle, second), "an item cannot be split")
  end
  for number, piece in ipairs(pieces) do
    for which, outer in ipairs({ 1, #pieces }) do
      if number ~= outer then
        silencing.no_fade(piece, which)
      else
        for name, kept in pairs(fades[which]) do
          reaper.SetMediaItemInfo_Value(piece, name, kept)
        end
      end
    end
  end
  return middle
end

local function is_one_of(parts, trace, shift_s)
  for _, part in ipairs(parts) do
    if sources.is_piece(trace, part, shift_s) then
      return true
    end
  end
  return false
end

-- The items of the place's track that are pieces of what a ticket has read, and lie where it has read them.
-- still: called between two items; false: this is worth nothing any more
function silencing.pieces(ticket, place, still)
  local parts, found, shift_s = ticket.parts or {}, {}, 0
  if place.item and parts[1] then
    local trace = sources.trace(place.item)
    shift_s = trace and trace.zero_s - parts[1].zero_s or 0
  end
  local from_s, to_s = place.position, place.position + place.length
  for index = 0, reaper.CountTrackMediaItems(place.track) - 1 do
    local item = reaper.GetTrackMediaItem(place.track, index)
    local starts = value(item, "D_POSITION")
    local inside = starts < to_s - EDGE_S and starts + value(item, "D_LENGTH") > from_s + EDGE_S
    local trace = inside and sources.plays(item, place.track) and sources.trace(item)
    if trace and is_one_of(parts, trace, shift_s) then
      found[#found + 1] = item
    end
    if not still() then
      return {}
    end
  end
  return found
end

-- Whether stems can become takes of the item of a place: there is one that has the take that was read, and the piece
-- that a portion was read from can be cut out of it.
function silencing.can_have_takes(ticket, place)
  local from_s, to_s = place.position, place.position + place.length
  local is_there = place.item ~= nil and place.take ~= nil
  return is_there and not (ticket.partial and reason(place.item, from_s, to_s))
end

-- The piece of an item that a portion was read from, cut out of it: the place of the ticket with `item` being that
-- piece. Only where it `can_have_takes`.
function silencing.piece(ticket, place)
  local number = reaper.GetMediaItemTakeInfo_Value(place.take, "IP_TAKENUMBER")
  local piece = cut(place.item, place.position, place.position + place.length)
  local found = { item = piece, take = reaper.GetTake(piece, math.floor(number)), offset = ticket.lead_s or 0 }
  found.track, found.position, found.length = place.track, place.position, place.length
  return found
end

-- Mute what a ticket has read, where it lies now. Returns sentences about what is left alone.
function silencing.part(ticket, place, pieces)
  local said = {}
  local from_s, to_s = place.position, place.position + place.length
  if #pieces == 0 then
    said[1] = CHANGED:format(text.shown(ticket.name))
  end
  for _, item in ipairs(pieces) do
    local why = reason(item, from_s, to_s)
    if why then
      said[#said + 1] = STAYS:format(name_of(item), why)
    else
      reaper.SetMediaItemInfo_Value(cut(item, from_s, to_s), "B_MUTE", 1)
    end
  end
  return said
end

return silencing
