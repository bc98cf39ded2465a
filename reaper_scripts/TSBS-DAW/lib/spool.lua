-- The folders between these scripts and the daemon, see PROTOCOL.md. Everything that moves, moves by rename.
local require = ...
local files, json, protocol, text = require("files"), require("json"), require("protocol"), require("text")

local spool = {}
spool.__index = spool

local ALIVE_S = 10 -- a heartbeat older than this is that of a dead daemon

function spool.at(root)
  return setmetatable({ root = root }, spool)
end

function spool:path(place, id, name)
  return files.join(files.join(self.root, place), id .. "/" .. name)
end

-- Where a job's own audio is written before it is asked for, and where it lies when the daemon has claimed it.
function spool:prepare_audio(id, name)
  local folder = self:path("inbox", id, "source")
  local made, err = files.make_folder(folder)
  if not made then
    return nil, err
  end
  return files.join(folder, name), self:path("jobs", id, "source/" .. name)
end

-- Ask for a separation. true, or nil and a sentence.
function spool:submit(job)
  local content, err = json.encode(job)
  if not content then
    return nil, ("%s cannot be requested: %s; rename it."):format(text.shown(job.song or job.id), err)
  end
  local made
  made, err = files.make_folder(files.join(files.join(self.root, "inbox"), job.id))
  if not made then
    return nil, err
  end
  local written
  written, err = files.write_new(self:path("inbox", job.id, "job.json"), content)
  if not written then
    return nil, ("Cannot write the job to %s (%s); free some space there."):format(text.shown(self.root), tostring(err))
  end
  return true
end

-- Whether a daemon is alive.
function spool:alive()
  local beat = protocol.read(files.join(self.root, "heartbeat.json"))
  local updated = beat and beat.updated_unix_s
  return type(updated) == "number" and math.abs(os.time() - updated) < ALIVE_S
end

-- The result, if the job is finished. nil alone: not yet; nil and a sentence: it cannot be understood.
function spool:result(id, pause)
  return protocol.read(self:path("done", id, "result.json"), pause)
end

-- How far a job is that is not finished: fraction 0..1 and a phrase. nil: the spool does not know it.
function spool:progress(id)
  local progress = protocol.read(self:path("jobs", id, "progress.json"))
  if progress and type(progress.fraction) == "number" then
    return progress.fraction, progress.message ~= "" and tostring(progress.message) or tostring(progress.state)
  elseif files.exists(self:path("jobs", id, "job.json")) then
    return 0, "queued"
  elseif files.exists(self:path("inbox", id, "job.json")) then
    return 0, "waiting for the daemon"
  end
  return nil
end

-- Ask the daemon to drop a job that is not finished.
function spool:cancel(id)
  for _, place in ipairs({ "jobs", "inbox" }) do
    if files.exists(self:path(place, id, "job.json")) then
      local file = io.open(self:path(place, id, "cancel"), "wb")
      if file then
        file:close()
        return true
      end
    end
  end
  return nil, "The job no longer exists, so it cannot be cancelled."
end

-- Let a finished job run again.
function spool:retry(id)
  local done, inbox = files.join(self.root, "done/" .. id), files.join(self.root, "inbox/" .. id)
  if not files.exists(files.join(done, "job.json")) or not os.rename(done, inbox) then
    return nil, "The job's folder is gone, so it cannot run again; separate the item again."
  end
  return true
end

return spool
