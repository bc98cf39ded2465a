-- Plays a file without putting it into a project: through the SWS extension where it is installed, else in REAPER's
-- Media Explorer.
local preview = {}

local playing -- { handle, source, path } of SWS

-- Whether the Media Explorer has to play.
function preview.is_elsewhere()
  return not reaper.APIExists("CF_CreatePreview")
end

function preview.stop()
  if not playing then
    return
  end
  if reaper.APIExists("CF_Preview_Stop") then
    pcall(reaper.CF_Preview_Stop, playing.handle) -- SWS has removed it if it was at its end
  end
  reaper.PCM_Source_Destroy(playing.source) -- SWS does not own it
  playing = nil
end

-- Play a file; the one that plays, a second time: end. Returns nil and a sentence if it cannot be played.
function preview.play(path)
  local was = playing and playing.path
  preview.stop()
  if was == path then
    return true
  elseif not reaper.APIExists("CF_CreatePreview") then
    reaper.OpenMediaExplorer(path, true)
    return true
  end
  local source = reaper.PCM_Source_CreateFromFile(path)
  if not source then
    return nil, ("'%s' cannot be played; run the job again."):format(path)
  end
  local handle = reaper.CF_CreatePreview(source)
  if not handle then
    reaper.PCM_Source_Destroy(source)
    return nil, ("'%s' cannot be played; check REAPER's audio device."):format(path)
  end
  playing = { handle = handle, source = source, path = path }
  if reaper.APIExists("CF_Preview_Play") then
    reaper.CF_Preview_Play(handle)
  end
  return true
end

return preview
