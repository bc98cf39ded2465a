-- What a user would do, done by a hook of its own: import a mix, trim it, ask for its stems in both ways.
-- Written into it by the test: FOLDER, and what SCENE to play.
local FOLDER, SCENE = "@FOLDER@", "@SCENE@"
local MIX_AT, TRIMMED, SAMPLES, SHORTER = 96000, 24001, 96007, 48005

local function say (name, text)
  local file = io.open (FOLDER .. "/" .. name .. ".part", "w")
  file:write (tostring (text))
  file:close ()
  os.rename (FOLDER .. "/" .. name .. ".part", FOLDER .. "/" .. name)
end

local function exists (path)
  local file = io.open (path, "r")
  if file then file:close () end
  return file ~= nil
end

local function delivered (count)
  local found = 0
  for route in Session:get_tracks ():iter () do
    if route:comment ():match ("^tsbs%-daw ") then found = found + 1 end
  end
  local tickets = io.open (Session:path () .. "/tsbs-daw.json", "r")
  local text = tickets and tickets:read ("a") or ""
  if tickets then tickets:close () end
  return found == count and text:match ('"tickets": %[%]') ~= nil
end

local function mix ()
  local found
  for route in Session:get_tracks ():iter () do
    if route:name () == "mix" then
      for region in route:to_track ():playlist ():region_list ():iter () do found = region end
    end
  end
  return found
end

local scenes = {}

function scenes.import ()
  local files = C.StringVector ()
  files:push_back (FOLDER .. "/mix.wav")
  Editor:do_import (files, Editing.ImportDistinctFiles, Editing.ImportAsTrack, ARDOUR.SrcQuality.SrcBest,
    ARDOUR.MidiTrackNameSource.SMFTrackName, ARDOUR.MidiTempoMapDisposition.SMFTempoIgnore,
    Temporal.timepos_t (MIX_AT), ARDOUR.PluginInfo (), ARDOUR.Track (), false)
  return "select"
end

function scenes.select ()
  local region = mix ()
  if not region then return end
  region:trim_front (Temporal.timepos_t (MIX_AT + TRIMMED))
  region:trim_end (Temporal.timepos_t (MIX_AT + TRIMMED + SAMPLES))
  local selection = ArdourUI.SelectionList ()
  selection:push_back (Editor:regionview_from_region (region))
  Editor:set_selection (selection, ArdourUI.SelectionOp.Set)
  local place = { region:position ():samples (), region:start ():samples (), region:length ():samples () }
  say ("selected", table.concat (place, " "))
  -- What a stem has to have, too: gain, an envelope, a fade switched off.
  local audio = region:to_audioregion ()
  audio:set_scale_amplitude (0.5)
  audio:set_fade_out_active (false)
  audio:envelope ():clear_list ()
  for _, point in ipairs ({ { 0, 1 }, { 24000, 0.25 }, { SAMPLES, 0.75 } }) do
    audio:envelope ():add (Temporal.timepos_t (point[1]), point[2], false, true)
  end
  audio:set_envelope_active (true)
  Editor:access_action ("LuaAction", "script-1")
  return "stems"
end

function scenes.stems ()
  return delivered (4) and "show"
end

function scenes.show ()
  Editor:access_action ("Editor", "fit_8_tracks")
  Editor:access_action ("Editor", "zoom-to-session")
  return "settle"
end

local settling = 0
function scenes.settle ()
  settling = settling + 1
  if settling == 15 then say ("shown", "yes") end
  return settling > 15 and exists (FOLDER .. "/seen") and "name"
end

-- The front stays, the end goes, so that the second request is another one.
function scenes.name ()
  local region = mix ()
  say ("muted", region:muted ())
  region:set_muted (false)
  region:trim_end (Temporal.timepos_t (MIX_AT + TRIMMED + SHORTER))
  region:set_name ('vérse "1" [separate instrumental]')
  return "outputs"
end

function scenes.outputs ()
  return delivered (9) and "undo"
end

-- Of every track that is ours: its comment and how many regions are on it.
local function contents ()
  local found = {}
  for route in Session:get_tracks ():iter () do
    if route:comment ():match ("^tsbs%-daw ") then
      found[#found + 1] = route:comment () .. "=" .. route:to_track ():playlist ():region_list ():size ()
    end
  end
  table.sort (found)
  return table.concat (found, "\n")
end

function scenes.undo ()
  local before, muted = contents (), { tostring (mix ():muted ()) }
  Editor:undo (1)
  local undone = contents ()
  muted[2] = tostring (mix ():muted ())
  Editor:redo (1)
  muted[3] = tostring (mix ():muted ())
  say ("undone muted", table.concat (muted, " "))
  say ("undone", undone)
  say ("redone", contents () == before)
  return "ready"
end

-- One region, asked for by its name, then the window of jobs, in which the test cancels it. There is no daemon.
function scenes.cancel_only ()
  scenes.import ()
  mix ():set_name ("mix [separate]")
  return "cancel"
end

local waited = 0 -- for the hook to say that it is alive
function scenes.cancel ()
  local file = io.open (Session:path () .. "/tsbs-daw.json", "r")
  local text = file and file:read ("a") or ""
  if file then file:close () end
  waited = waited + 1
  if not text:find ('"state": "waiting"', 1, true) or waited < 20 then return end
  Editor:access_action ("LuaAction", "script-2") -- the test answers the window that it opens
  return "cancelled"
end

local since = 0
function scenes.cancelled ()
  since = since + 1
  if delivered (0) then return "ready" end
  return since % 150 == 0 and "cancel" -- what was pressed came too early for the window: once more, in a new one
end

-- Two regions of one track, selected together.
local function each_mix ()
  local found = {}
  for route in Session:get_tracks ():iter () do
    if route:name () == "mix" then
      for region in route:to_track ():playlist ():region_list ():iter () do found[#found + 1] = region end
      return found, route:to_track ():playlist ()
    end
  end
end

function scenes.both ()
  scenes.import ()
  local regions, playlist = each_mix ()
  regions[1]:trim_end (Temporal.timepos_t (MIX_AT + SHORTER))
  local other = ARDOUR.RegionFactory.clone_region (regions[1], true, false)
  playlist:add_region (other, Temporal.timepos_t (MIX_AT + 2 * SHORTER), 1, false)
  other:trim_end (Temporal.timepos_t (MIX_AT + 3 * SHORTER - 5000))
  return "select_both"
end

function scenes.select_both ()
  local selection = ArdourUI.SelectionList ()
  for _, region in ipairs (each_mix ()) do selection:push_back (Editor:regionview_from_region (region)) end
  Editor:set_selection (selection, ArdourUI.SelectionOp.Set)
  Editor:access_action ("LuaAction", "script-1")
  return "stems_of_both"
end

function scenes.stems_of_both ()
  if not delivered (8) then return end
  local muted = {}
  for number, region in ipairs (each_mix ()) do muted[number] = tostring (region:muted ()) end
  say ("both muted", table.concat (muted, " "))
  return "ready"
end

function scenes.ready ()
  say ("saved", Session:save_state ("", false, false, false, false, false))
  say ("ready", "yes")
  return "over"
end

-- One region, asked for by its name, and nothing more: the test waits for what comes of it.
function scenes.name_only ()
  scenes.import ()
  mix ():set_name ("mix [separate]")
  return "over"
end

-- A later start, with the tickets of the earlier one put back: everything is there, so nothing may come.
function scenes.again ()
  return delivered (9) and "ready"
end

local scene, busy, ticks = SCENE, false, 0
return function ()
  ticks = ticks + 1
  if busy or ticks < 10 or not scenes[scene] then return end
  busy = true
  local ok, result = pcall (scenes[scene])
  if not ok then
    say ("failed", scene .. ": " .. tostring (result))
    scene = "over"
  elseif result then
    scene = result
    say ("scene", scene)
  end
  busy = false
end
