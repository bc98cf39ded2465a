ardour {
  ["type"] = "EditorHook",
  name = "TSBS-DAW: background",
  license = "Apache-2.0",
  author = "tsbs-daw",
  description = [[Sends regions to the tsbs-daw daemon and inserts their stems as new tracks at the same position.
To separate a region, run the action "TSBS-DAW: separate selected regions", or rename the region so that its name ends
in [separate] or, with a preset, in [separate karaoke].]]
}

function signals ()
  return LuaSignal.Set ():add ({ [LuaSignal.LuaTimerDS] = true })
end

-- Ardour keeps only the factory, so everything is inside it.
--
-- <session>/tsbs-daw.asked     requests of the action; in each line the region's id, a tab, and the preset
-- <session>/tsbs-daw.show      request of the action "jobs" to show the window of jobs
-- <session>/tsbs-daw.cancel    jobs to cancel, one id in each line
-- <session>/tsbs-daw.json      tickets: one for each job until its tracks are in the saved session
-- <spool>/inbox/<id>/          the region's audio, then job.json
-- <spool>/done/<id>/           result.json
function factory ()
  local SPOOL = "" -- written by `tsbs-daw ardour install`
  local SCHEMA = 1
  local BUSY_S = 0.008 -- time for reading a region in each tick of 0.1 s
  local BLOCK = 1024 -- samples: under a millisecond
  local NAMES = 500 -- regions whose names are checked in one tick
  local PACKED = 128 -- values in one call to string.pack
  local LONGEST_BYTES = 0xFFFFFFFF - 64 -- limit of the audio in a WAV file
  local FOLDER_TICKS = 100 -- time limit for creating a folder
  local FAR = 100000 -- order of a track below all others
  local MISSED = 3 -- failed checks until a job is lost; a job may be moving from one folder to the next
  local WINDOWS = SPOOL:match ("^%a:[/\\]") or SPOOL:match ("^\\\\")

  ---------------------------------------------------------------------------------------------------------- JSON

  local encode, decode
  do
    local escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }
    local unescapes = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

    function encode (value)
      if type (value) == "string" then
        return '"' .. value:gsub ('[%c"\\]', function (char)
          return escapes[char] or ("\\u%04x"):format (char:byte ())
        end) .. '"'
      elseif type (value) == "number" then
        return ("%d"):format (value)
      elseif type (value) ~= "table" then
        return tostring (value)
      end
      local parts = {}
      if value.list then
        for _, one in ipairs (value.list) do parts[#parts + 1] = encode (one) end
        return "[" .. table.concat (parts, ", ") .. "]"
      end
      for key, one in pairs (value) do parts[#parts + 1] = encode (key) .. ": " .. encode (one) end
      table.sort (parts)
      return "{" .. table.concat (parts, ", ") .. "}"
    end

    local function character (text, at)
      local high = tonumber (text:sub (at, at + 3), 16) or error ("a wrong escape")
      local low = text:match ("^\\u([dD][c-fC-F]%x%x)", at + 4)
      if high >= 0xD800 and high < 0xDC00 and low then
        return utf8.char (0x10000 + (high - 0xD800) * 0x400 + tonumber (low, 16) - 0xDC00), at + 10
      end
      return utf8.char (high), at + 4
    end

    local function string_at (text, at)
      local parts = {}
      while true do
        local stop = text:find ('["\\]', at) or error ("an open string")
        parts[#parts + 1] = text:sub (at, stop - 1)
        if text:sub (stop, stop) == '"' then return table.concat (parts), stop + 1 end
        local escape = text:sub (stop + 1, stop + 1)
        if escape == "u" then
          parts[#parts + 1], at = character (text, stop + 2)
        else
          parts[#parts + 1], at = unescapes[escape] or escape, stop + 2
        end
      end
    end

    local value_at

    -- Read the members of an object, or the elements of a list, up to `closing`.
    local function each (text, at, closing, read)
      at = text:match ("^%s*()", at)
      while text:sub (at, at) ~= closing do
        at = text:match ("^%s*,?%s*()", read (at))
        if at > #text then error ("an open bracket") end
      end
      return at + 1
    end

    function value_at (text, at)
      at = text:match ("^%s*()", at)
      local char, found = text:sub (at, at), {}
      if char == '"' then
        return string_at (text, at + 1)
      elseif char == "{" then
        return found, each (text, at + 1, "}", function (from)
          local key, after = string_at (text, (text:match ('^"()', from) or error ("no name")))
          found[key], after = value_at (text, text:match ("^%s*:()", after) or error ("no colon"))
          return after
        end)
      elseif char == "[" then
        return found, each (text, at + 1, "]", function (from)
          local value, after = value_at (text, from)
          found[#found + 1] = value
          return after
        end)
      end
      local word = text:match ("^[%w.+-]+", at) or error ("no value")
      local values = { ["true"] = true, ["false"] = false, null = false }
      local value = values[word]
      if word == "null" then value = nil elseif value == nil then value = tonumber (word) or error ("no value") end
      return value, at + #word
    end

    -- Returns the value, or nil and the reason.
    function decode (text)
      local ok, value = pcall (value_at, text, 1)
      if ok and type (value) == "table" then return value end
      return nil, ok and "no object" or value
    end
  end

  --------------------------------------------------------------------------------------------------------- files

  local function read (path)
    local file = io.open (path, "rb")
    local text = file and file:read ("a")
    if file then file:close () end
    return text
  end

  -- Write a file atomically: readers see the old text or the new one. Returns true, or nil and the reason.
  local function write (path, text)
    local file, err = io.open (path .. ".tmp", "wb")
    if not file then return nil, err end
    local written, closed
    written, err = file:write (text)
    closed = file:close ()
    if not (written and closed) then return nil, err or "the disk may be full" end
    if WINDOWS then os.remove (path) end -- on Windows, renaming fails if the target exists
    return os.rename (path .. ".tmp", path)
  end

  -- Lua cannot create folders, so this starts a program that can, and does not wait for it.
  local function make_folder (path)
    if WINDOWS then
      os.forkexec ("cmd.exe", "/c", "mkdir", (path:gsub ("/", "\\")))
    else
      os.forkexec ("/bin/mkdir", "-p", path)
    end
  end

  ------------------------------------------------------------------------------------------------------- tickets

  local session -- its folder and snapshot; the tickets of other sessions are not handled
  local tickets = {}
  local reading -- the region that is being read: { ticket, audio, file, at, ... }
  local ticks, busy, alive = 0, false, false
  local missed = {} -- failed checks for a job in the spool, by its id

  local function folder ()
    return (Session:path ():gsub ("[/\\]$", ""))
  end

  local function save_tickets ()
    local ok, err = write (folder () .. "/tsbs-daw.json", encode ({ schema = SCHEMA, tickets = { list = tickets } }))
    if not ok then print ("tsbs-daw: cannot write the tickets: " .. tostring (err)) end
  end

  local function load_tickets ()
    local found = decode (read (folder () .. "/tsbs-daw.json") or "") or {}
    tickets = found.schema == SCHEMA and type (found.tickets) == "table" and found.tickets or {}
    reading = nil
  end

  local function forget (ticket)
    for number, one in ipairs (tickets) do
      if one == ticket then table.remove (tickets, number) break end
    end
    save_tickets ()
  end

  -- End a ticket that cannot be delivered, and show the reason once.
  local function give_up (ticket, sentence)
    ticket.state, ticket.trouble = "trouble", sentence
    save_tickets ()
    print ("tsbs-daw: " .. sentence)
    busy = true -- the dialog lets the timer run
    LuaDialog.Message ("tsbs-daw", ticket.name .. ": " .. sentence, LuaDialog.MessageType.Warning,
      LuaDialog.ButtonType.Close):run ()
    busy = false
    forget (ticket)
  end

  local function new_id ()
    local digits = {}
    for number = 1, 12 do digits[number] = ("%x"):format (math.random (0, 15)) end
    return os.date ("!%Y%m%d-%H%M%S") .. "-" .. table.concat (digits)
  end

  local function region_of (id)
    local region = ARDOUR.RegionFactory.region_by_id (PBD.ID (id))
    return not region:isnil () and not region:to_audioregion ():isnil () and region or nil
  end

  local function ask (region, preset)
    local name = region:name ()
    tickets[#tickets + 1] = {
      id = new_id (),
      snapshot = Session:snap_name (),
      region = region:to_stateful ():id ():to_s (),
      name = name,
      preset = preset ~= "" and preset or "none",
      position = region:position ():samples (),
      samples = region:length ():samples (),
      state = "asked",
    }
    save_tickets ()
  end

  -- Read the requests of the action since the last check.
  local function take_requests ()
    local path = folder () .. "/tsbs-daw.asked"
    local text = read (path)
    if not text then return end
    os.remove (path)
    for id, preset in text:gmatch ("(%d+)\t([^\n]*)\n") do
      local region = region_of (id)
      if region then ask (region, preset) end
    end
  end

  -- Request the regions of a track whose names ask for it, after the first `from`. Returns whether none are left.
  local function look_at_regions (track, from)
    local number = 0
    for region in track:playlist ():region_list ():iter () do
      number = number + 1
      if number > from + NAMES then return false end
      local name, preset = nil, nil
      if number > from then name, preset = region:name ():match ("^(.-)%s*%[separate%s*([^%]]*)%]%s*$") end
      if name and not region:to_audioregion ():isnil () then
        region:set_name (name ~= "" and name or "region")
        ask (region, preset)
      end
    end
    return true
  end

  -- Check one track at a time, and some hundred of its regions, because a session may have thousands.
  local looked_at, looked_from = 1, 0
  local function look_at_names ()
    local tracks = Session:get_tracks ()
    local number, at_end = 0, true
    if looked_at > tracks:size () then looked_at, looked_from = 1, 0 end
    for route in tracks:iter () do
      number = number + 1
      local track = number == looked_at and route:to_track ()
      if track and not track:isnil () then at_end = look_at_regions (track, looked_from) end
    end
    if at_end then looked_at, looked_from = looked_at + 1, 0 else looked_from = looked_from + NAMES end
  end

  ------------------------------------------------------------------------------------------------ asking the daemon

  local function inbox (ticket, name)
    return SPOOL .. "/inbox/" .. ticket.id .. "/" .. name
  end

  local function header (channels, sample_rate, bytes)
    return string.pack ("<c4I4c4c4I4I2I2I4I4I2I2c4I4", "RIFF", 36 + bytes, "WAVE", "fmt ", 16, 3, channels, sample_rate,
      sample_rate * channels * 4, channels * 4, 32, "data", bytes)
  end

  -- Returns the open region, or nil and a sentence if it cannot be read correctly.
  local function open_region (ticket)
    local region = region_of (ticket.region)
    if not region then return nil, "The region no longer exists; separate another one." end
    local audio = region:to_audioregion ():to_readable ()
    local sample_rate, channels = math.floor (Session:nominal_sample_rate ()), audio:n_channels ()
    local bytes = ticket.samples * channels * 4
    if math.floor (Session:sample_rate ()) ~= sample_rate then
      return nil, "The audio engine is not running at the session's sample rate; start it at " .. sample_rate .. " Hz."
    elseif bytes > LONGEST_BYTES then
      return nil, "The region is too long for a WAV file; split it."
    end
    make_folder (SPOOL .. "/inbox/" .. ticket.id .. "/source")
    local buffers = {}
    for channel = 1, channels do buffers[channel] = ARDOUR.DSP.DspShm (BLOCK) end
    return { ticket = ticket, audio = audio, channels = channels, buffers = buffers, at = 0, waited = 0,
      sample_rate = sample_rate, header = header (channels, sample_rate, bytes) }
  end

  -- Returns one block of the region, interleaved, as the bytes of a 32-bit float WAV file.
  local function block_bytes (open, count)
    local values, channels = {}, open.channels
    for channel = 1, channels do
      local memory = open.buffers[channel]:to_float (0)
      if open.audio:read (memory, open.at, count, channel - 1) ~= count then return nil end
      local heard = memory:get_table (count)
      for number = 1, count do values[(number - 1) * channels + channel] = heard[number] end
    end
    local parts, total = {}, count * channels
    local whole = "<" .. ("f"):rep (PACKED)
    for from = 1, total, PACKED do
      local to = math.min (from + PACKED - 1, total)
      local format = to - from + 1 == PACKED and whole or "<" .. ("f"):rep (to - from + 1)
      parts[#parts + 1] = string.pack (format, table.unpack (values, from, to))
    end
    return table.concat (parts)
  end

  local function short (name)
    local cut = name:sub (1, 100)
    while cut ~= "" and not utf8.len (cut) do cut = cut:sub (1, -2) end
    return cut ~= "" and cut or "region"
  end

  local function submit (open)
    local ticket = open.ticket
    local job = {
      schema = SCHEMA,
      id = ticket.id,
      -- The daemon claims the folder by moving it from inbox/ to jobs/.
      source = { path = SPOOL .. "/jobs/" .. ticket.id .. "/source/region.wav" },
      output = folder () .. "/tsbs-daw",
      song = short (ticket.name),
      preset = ticket.preset,
      origin = "ardour",
      priority = "interactive",
      deliver = { session = folder (), region = ticket.region, position_samples = ticket.position },
    }
    return write (inbox (ticket, "job.json"), encode (job))
  end

  -- Continue reading within the time limit of a tick. Returns a sentence if that fails.
  local function go_on_reading ()
    local open, began = reading, os.clock ()
    local unwritable = "Cannot write to the spool " .. SPOOL .. "; free some space, then separate the region again."
    if not open.file then
      open.file = io.open (inbox (open.ticket, "source/region.wav"), "wb")
      open.waited = open.waited + 1
      if not open.file then return open.waited > FOLDER_TICKS and unwritable or nil end
      open.file:write (open.header)
    end
    while open.at < open.ticket.samples and os.clock () - began < BUSY_S do
      local count = math.min (BLOCK, open.ticket.samples - open.at)
      local bytes = block_bytes (open, count)
      if not bytes then return "Cannot read the region's audio; check the session for missing files." end
      if not open.file:write (bytes) then return unwritable end
      open.at = open.at + count
    end
    if open.at < open.ticket.samples then return nil end
    reading = nil
    if not open.file:close () or not submit (open) then return unwritable end
    open.ticket.state = "waiting"
    save_tickets ()
    return nil
  end

  ----------------------------------------------------------------------------------------------------- delivering

  local function comment (ticket, stem)
    return "tsbs-daw " .. ticket.id .. " " .. stem.name
  end

  local function comments ()
    local found = {}
    for route in Session:get_tracks ():iter () do found[route:comment ()] = true end
    return found
  end

  -- Returns a sentence on why a result cannot be delivered; nil if it can.
  local function unfit (ticket, result)
    if result.schema ~= SCHEMA then
      return "The result is from another version of the daemon; update tsbs-daw and run `tsbs-daw ardour install`."
    elseif result.state ~= "done" then
      return result.error or ("The job is " .. tostring (result.state) .. ".")
    elseif type (result.stems) ~= "table" or #result.stems == 0 then
      return "The result has no stems; separate the region again."
    elseif result.samples ~= ticket.samples or result.sample_rate ~= math.floor (Session:nominal_sample_rate ()) then
      return "The stems do not have the length and sample rate of the region; separate the region again."
    end
    for _, stem in ipairs (result.stems) do
      local file = type (stem.path) == "string" and type (stem.name) == "string" and io.open (stem.path, "rb")
      if not file then return "The stem " .. tostring (stem.path) .. " is missing; separate the region again." end
      file:close ()
    end
    return nil
  end

  -- Returns the region that was read and its track; nil if the region was removed or its length has changed.
  local function source_of (ticket)
    for route in Session:get_tracks ():iter () do
      local track = route:to_track ()
      for region in track:playlist ():region_list ():iter () do
        if region:to_stateful ():id ():to_s () == ticket.region and region:length ():samples () == ticket.samples then
          return region, route
        end
      end
    end
    return nil
  end

  -- Import files as regions without tracks, which adds no undo step. Returns the regions in the files' order, or nil.
  local function import (stems)
    local before, files, found = {}, C.StringVector (), {}
    for id in ARDOUR.RegionFactory.regions ():iter () do before[id:to_s ()] = true end
    for _, stem in ipairs (stems) do files:push_back (stem.path) end
    Editor:do_import (files, Editing.ImportDistinctFiles, Editing.ImportAsRegion, ARDOUR.SrcQuality.SrcBest,
      ARDOUR.MidiTrackNameSource.SMFTrackName, ARDOUR.MidiTempoMapDisposition.SMFTempoIgnore,
      Temporal.timepos_t (0), ARDOUR.PluginInfo (), ARDOUR.Track (), false)
    for id, region in ARDOUR.RegionFactory.regions ():iter () do
      if not before[id:to_s ()] and region:whole_file () and not region:to_audioregion ():isnil () then
        found[#found + 1] = { id = tonumber (id:to_s ()), region = region }
      end
    end
    table.sort (found, function (one, other) return one.id < other.id end)
    for number, stem in ipairs (stems) do -- a region has the name of its file
      local file = stem.path:match ("([^/\\]+)%.%w+$")
      if not found[number] or found[number].region:name ():sub (1, #file) ~= file then return nil end
      found[number] = found[number].region
    end
    return #found == #stems and found or nil
  end

  -- Create a track with a region. The changes are part of the current undo step, but undoing it does not remove the
  -- track; that is how Ardour treats all tracks.
  local function new_track (stem, whole, position)
    local outputs = Session:master_out ():isnil () and 2 or Session:master_out ():n_outputs ():n_audio ()
    local tracks = Session:new_audio_track (whole:to_audioregion ():n_channels (), outputs, nil, 1, stem.name,
      ARDOUR.PresentationInfo.max_order, ARDOUR.TrackMode.Normal, true)
    local track = tracks:front ()
    local playlist = track:playlist ()
    playlist:to_stateful ():clear_changes ()
    local region = ARDOUR.RegionFactory.clone_region (whole, true, false)
    playlist:add_region (region, Temporal.timepos_t (position), 1, false)
    Session:add_stateful_diff_command (playlist:to_statefuldestructible ())
    return track
  end

  -- Copy the fade lengths of a region. In Ardour 7 and 8, scripts cannot read them.
  local function copy_fade_lengths (source, region)
    pcall (function ()
      local fade_in, fade_out = source:fade_in_length (), source:fade_out_length ()
      region:set_fade_in_length (fade_in)
      region:set_fade_out_length (fade_out)
    end)
  end

  -- Copy gain, envelope and fades, because the region was read without them.
  local function dress_region (source, region)
    region:set_scale_amplitude (source:scale_amplitude ())
    copy_fade_lengths (source, region)
    region:set_fade_in_active (source:fade_in_active ())
    region:set_fade_out_active (source:fade_out_active ())
    local from, to = source:envelope (), region:envelope ()
    to:clear_list ()
    for event in from:events ():iter () do to:add (event.when, event.value, false, true) end
    region:set_envelope_active (source:envelope_active ())
  end

  local function dress (route, ticket, stem, source)
    route:set_name (stem.name)
    route:set_comment (comment (ticket, stem), nil)
    local red, green, blue = (stem.color or ""):match ("^#(%x%x)(%x%x)(%x%x)$")
    if red then route:presentation_info_ptr ():set_color (tonumber (red .. green .. blue .. "ff", 16)) end
    if stem.muted then route:mute_control ():set_value (1, PBD.GroupControlDisposition.NoGroup) end
    for region in route:to_track ():playlist ():region_list ():iter () do
      if source then dress_region (source:to_audioregion (), region:to_audioregion ()) end
    end
  end

  -- Mute the source of the stems, which would otherwise be heard twice.
  local function mute (region)
    region:to_stateful ():clear_changes ()
    region:set_muted (true)
    Session:add_stateful_diff_command (region:to_statefuldestructible ())
  end

  -- Move tracks directly below another one. Ardour renumbers all tracks after each change, so the tracks below are
  -- first moved to the end one by one, in the final order, and then numbered.
  local function move_below (above, routes)
    local ours, order, below = {}, above:presentation_info_ptr ():order (), {}
    for _, route in ipairs (routes) do ours[route:to_stateful ():id ():to_s ()] = true end
    for one in Session:get_stripables ():iter () do
      local at = one:presentation_info_ptr ():order ()
      if at > order and not ours[one:to_stateful ():id ():to_s ()] then below[#below + 1] = { at = at, one = one } end
    end
    table.sort (below, function (one, other) return one.at < other.at end)
    local wanted = table.move (routes, 1, #routes, 1, {})
    for _, one in ipairs (below) do wanted[#wanted + 1] = one.one end
    for number, one in ipairs (wanted) do one:set_presentation_order (FAR + number) end
    for number, one in ipairs (wanted) do one:set_presentation_order (order + number) end
  end

  -- Make all changes of `body` one undo step, even if it fails.
  local function in_one_step (name, body)
    Session:begin_reversible_command (name)
    local ok, found = pcall (body)
    if not Session:abort_empty_reversible_command () then Session:commit_reversible_command (nil) end
    if not ok then error (found, 0) end
    return found
  end

  -- Put the stems into the session. Returns a sentence if that fails.
  local function deliver (ticket, result)
    local there, wanted = comments (), {}
    for _, stem in ipairs (result.stems) do
      if not there[comment (ticket, stem)] then wanted[#wanted + 1] = stem end
    end
    if #wanted == 0 then return nil end
    local source, above = source_of (ticket)
    local position = source and source:position ():samples () or ticket.position
    local regions = import (wanted)
    if not regions then
      return "Ardour did not import all files of " .. tostring (result.folder) .. "; import the rest by hand."
    end
    local routes = in_one_step ("tsbs-daw: stems of " .. ticket.name, function ()
      local made = {}
      for number, stem in ipairs (wanted) do
        made[number] = new_track (stem, regions[number], position)
        dress (made[number], ticket, stem, source)
      end
      if source then mute (source) end
      return made
    end)
    if above then move_below (above, routes) end
    -- The ticket is removed only after the session is saved with its tracks, so that a crash loses nothing.
    Session:save_state ("", false, false, false, false, false)
    return nil
  end

  -- Returns whether a job is lost: several checks did not find it in the spool, because a user removed it or the spool.
  local function lost (ticket)
    if ticks % 30 ~= 0 then return false end
    for _, place in ipairs ({ "inbox", "jobs", "done" }) do
      local file = io.open (SPOOL .. "/" .. place .. "/" .. ticket.id .. "/job.json", "rb")
      if file then
        file:close ()
        missed[ticket.id] = nil
        return false
      end
    end
    missed[ticket.id] = (missed[ticket.id] or 0) + 1
    return missed[ticket.id] >= MISSED
  end

  -- Returns whether the ticket has ended.
  local function look_for_result (ticket)
    local text = read (SPOOL .. "/done/" .. ticket.id .. "/result.json")
    if not text then
      if not lost (ticket) then return false end
      give_up (ticket, "The job is no longer in the spool; separate the region again.")
      return true
    end
    local result, err = decode (text)
    if result and result.schema == SCHEMA and result.state == "cancelled" then
      forget (ticket) -- the user cancelled it
      return true
    end
    local sentence = result and unfit (ticket, result) or not result and "The daemon's result is damaged: " .. err
    if not sentence then
      busy = true -- importing lets the timer run
      local ok, trouble = pcall (deliver, ticket, result)
      busy = false
      sentence = not ok and "Cannot put the stems into the session: " .. tostring (trouble) or trouble
    end
    if sentence then give_up (ticket, sentence) else forget (ticket) end
    return true
  end

  ------------------------------------------------------------------------------------------------- user interface

  -- Returns the progress of a job, as part of a line.
  local function how_far (ticket)
    if reading and reading.ticket == ticket then
      return ("being read, %d %%"):format (100 * reading.at // ticket.samples)
    elseif ticket.state == "asked" then
      return "waits to be read"
    end
    local progress = decode (read (SPOOL .. "/jobs/" .. ticket.id .. "/progress.json") or "")
    if progress and type (progress.fraction) == "number" then
      local message = tostring (progress.message or "")
      return ("%s, %d %%"):format (message ~= "" and message or tostring (progress.state), 100 * progress.fraction // 1)
    end
    return "waits for the daemon"
  end

  -- Cancel a job: stop reading its region, or ask the daemon to cancel it, which then writes a result.
  local function cancel (ticket)
    if ticket.state == "waiting" then
      for _, place in ipairs ({ "jobs", "inbox" }) do
        local file = io.open (SPOOL .. "/" .. place .. "/" .. ticket.id .. "/cancel", "wb")
        if file then return file:close () end
      end
      return nil -- it is finished and will be delivered
    elseif reading and reading.ticket == ticket then
      if reading.file then reading.file:close () end
      os.remove (inbox (ticket, "source/region.wav"))
      reading = nil
    end
    forget (ticket)
  end

  local function cancel_named ()
    local path = folder () .. "/tsbs-daw.cancel"
    local text = read (path)
    if not text then return end
    os.remove (path)
    for id in text:gmatch ("[%w_-]+") do
      for _, ticket in ipairs (table.move (tickets, 1, #tickets, 1, {})) do
        if ticket.id == id then cancel (ticket) end
      end
    end
  end

  -- Show the window of jobs, in which jobs can be ticked for cancelling.
  local function show_jobs ()
    local path = folder () .. "/tsbs-daw.show"
    if not read (path) then return end
    os.remove (path)
    local rows = {}
    for _, ticket in ipairs (tickets) do
      local title = ("Cancel %s (%s): %s"):format (ticket.name, ticket.preset, how_far (ticket))
      rows[#rows + 1] = { type = "checkbox", key = ticket.id, title = title, default = false }
    end
    if #rows == 0 then rows[1] = { type = "label", title = "No jobs are running." } end
    busy = true -- the dialog lets the timer run
    local chosen = LuaDialog.Dialog ("tsbs-daw: jobs", rows):run ()
    busy = false
    for _, ticket in ipairs (table.move (tickets, 1, #tickets, 1, {})) do
      if chosen and chosen[ticket.id] then cancel (ticket) end
    end
  end

  -------------------------------------------------------------------------------------------------------- one tick

  local function work ()
    for _, ticket in ipairs (tickets) do
      if ticket.snapshot == Session:snap_name () then
        if ticket.state == "trouble" then
          return forget (ticket) -- the error was shown, but Ardour ended before the ticket was removed
        elseif ticket.state == "asked" and not reading then
          local open, sentence = open_region (ticket)
          if not open then return give_up (ticket, sentence) end
          reading = open
        elseif ticket.state == "waiting" and ticks % 3 == 0 and look_for_result (ticket) then
          return -- the list has changed
        end
      end
    end
  end

  local function step ()
    ticks = ticks + 1
    local now = folder () .. "\n" .. Session:snap_name ()
    if now ~= session then
      session = now
      load_tickets ()
    end
    if ticks % (alive and 50 or 10) == 1 then -- the spool is created by the daemon or the first job
      alive = write (SPOOL .. "/ardour-alive", tostring (os.time ())) ~= nil
    end
    take_requests ()
    cancel_named ()
    show_jobs ()
    look_at_names ()
    if reading then
      local ticket, sentence = reading.ticket, go_on_reading ()
      if sentence then
        reading = nil
        give_up (ticket, sentence)
      end
    end
    work ()
  end

  math.randomseed (os.time () + (tonumber (tostring ({}):match ("0x(%x+)") or "0", 16) or 0) % 0x7FFFFFFF)

  local told
  return function ()
    if busy or SPOOL == "" or Session == nil or not (io and os) then return end
    local ok, err = pcall (step)
    if ok then return end
    busy, err = false, tostring (err)
    if reading then
      local ticket = reading.ticket
      reading = nil
      pcall (give_up, ticket, "Cannot send the region to the daemon: " .. err)
      busy = false
    elseif err ~= told then
      print ("tsbs-daw: " .. err)
      told = err
    end
  end
end
