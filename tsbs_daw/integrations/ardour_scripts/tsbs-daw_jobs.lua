ardour {
  ["type"] = "EditorAction",
  name = "TSBS-DAW: jobs",
  license = "Apache-2.0",
  author = "tsbs-daw",
  description = [[Shows the running jobs and their progress, and cancels the ticked ones.
Needs the hook "TSBS-DAW: background", which tracks the jobs.]]
}

-- This script only makes a request; the hook shows the window.
function factory ()
  local SPOOL = "" -- written by `tsbs-daw ardour install`
  local ALIVE_S = 15

  local function tell (sentence)
    LuaDialog.Message ("tsbs-daw", sentence, LuaDialog.MessageType.Warning, LuaDialog.ButtonType.Close):run ()
  end

  return function ()
    if SPOOL == "" then
      return tell ("This copy of the script has no spool path; run `tsbs-daw ardour install`.")
    elseif not (io and os) then
      return tell ("Scripts cannot access files; allow it in Preferences > Scripting, then try again.")
    end
    local alive = io.open (SPOOL .. "/ardour-alive", "rb")
    local at = alive and tonumber (alive:read ("a"):match ("^%d+"))
    if alive then alive:close () end
    if not at or math.abs (os.time () - at) > ALIVE_S then
      return tell ('The hook "TSBS-DAW: background" is not running; add it in the Script Manager.')
    end
    local file, err = io.open (Session:path ():gsub ("[/\\]$", "") .. "/tsbs-daw.show", "wb")
    if not file then
      return tell (("Cannot write to the session's folder (%s); check its permissions."):format (err))
    end
    file:write ("jobs")
    file:close ()
  end
end
