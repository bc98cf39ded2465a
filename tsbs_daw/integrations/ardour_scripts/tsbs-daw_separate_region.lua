ardour {
  ["type"] = "EditorAction",
  name = "TSBS-DAW: separate selected regions",
  license = "Apache-2.0",
  author = "tsbs-daw",
  description = [[Separates the selected audio regions and inserts their stems as new tracks at the same position.
Needs the hook "TSBS-DAW: background", which does the work, and a running daemon: tsbs-daw watch.]]
}

-- Ardour keeps only the factory, so everything is inside it. The action only makes a request and returns; the hook,
-- which Ardour calls regularly, does the work.
function factory ()
  local SPOOL = "" -- written by `tsbs-daw ardour install`
  local PRESET = "none" -- written by `tsbs-daw ardour install`
  local ALIVE_S = 15

  local function tell (kind, sentence)
    LuaDialog.Message ("tsbs-daw", sentence, LuaDialog.MessageType[kind], LuaDialog.ButtonType.Close):run ()
  end

  -- The age in seconds of the last sign of life of a file's writer.
  local function age (name, pattern)
    local file = io.open (SPOOL .. "/" .. name, "rb")
    local text = file and file:read ("a") or ""
    if file then file:close () end
    local at = tonumber (text:match (pattern))
    return at and math.abs (os.time () - at) or math.huge
  end

  return function ()
    if SPOOL == "" then
      return tell ("Warning", "This copy of the script has no spool path; run `tsbs-daw ardour install`.")
    elseif not (io and os) then
      return tell ("Warning", "Scripts cannot access files; allow it in Preferences > Scripting, then try again.")
    end
    local ids = {}
    for region in Editor:get_selection ().regions:regionlist ():iter () do
      if not region:to_audioregion ():isnil () then ids[#ids + 1] = region:to_stateful ():id ():to_s () end
    end
    if #ids == 0 then
      return tell ("Info", "No audio region is selected; select one, then try again.")
    end
    local path = Session:path ():gsub ("[/\\]$", "") .. "/tsbs-daw.asked"
    local file, err = io.open (path, "ab")
    if not file then
      return tell ("Warning", ("Cannot write to the session's folder (%s); check its permissions."):format (err))
    end
    for _, id in ipairs (ids) do file:write (id, "\t", PRESET, "\n") end
    file:close ()
    if age ("ardour-alive", "^%d+") > ALIVE_S then
      tell ("Warning", 'The hook "TSBS-DAW: background" is not running; add it in the Script Manager.')
    elseif age ("heartbeat.json", '"updated_unix_s"%s*:%s*([%d.]+)') > ALIVE_S then
      tell ("Info", "No daemon is running, so the job waits; start one with: tsbs-daw watch")
    end
  end
end
