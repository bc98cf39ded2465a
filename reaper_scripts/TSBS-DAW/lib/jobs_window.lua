-- What is under way: how far, how long still, and what went wrong; to cancel, retry, place or dismiss.
local require, folder = ...
local clock, files, project = require("clock"), require("files"), require("project")
local background, daemon = require("background"), require("daemon")
local preview, settings = require("preview"), require("settings")
local pending_jobs, spools, text = require("pending_jobs"), require("spool"), require("text")

local jobs_window = {}

local FILE = "tsbs-daw_Jobs.lua"
local LOOK_EVERY_S = 0.25
local ALIVE_S = 3.0
local DRAW_S = 0.002 -- of a tick, for looking at jobs
local PLAY_STOP = 40044 -- "Transport: Play/stop"
local NO_DAEMON =
  "No daemon is running. Your jobs wait until one is started; if it does not start, run tsbs-daw: setup."
local OPEN = "Done; open %s to receive it, or put it into the project in front."
local STARTING = "Starting the daemon; the first start takes some seconds."

local function alive()
  local beat = tonumber((settings.word("jobs_window")))
  return beat ~= nil and math.abs(reaper.time_precise() - beat) < ALIVE_S
end

-- Light the toolbar button of this window, or let it go out: it is lit while jobs are under way, and when there is
-- something to say.
function jobs_window.light(is_lit)
  local command = files.register(folder, FILE, false)
  reaper.SetToggleCommandState(0, command, is_lit and 1 or 0)
  reaper.RefreshToolbar2(0, command)
end

-- Say that the window has something to say, without taking the keys from what the user is doing: by its lit button, and
-- in REAPER's help line.
function jobs_window.notify(sentence)
  if not alive() then
    settings.word("news", "1")
    jobs_window.light(true)
    reaper.Help_Set(("tsbs-daw: %s Run tsbs-daw: jobs for more."):format(sentence), true)
  end
end

-- Show how far the jobs are where it takes no keys: by the button, and in the help line, where nothing else is said.
-- count: how many are under way; line: about one of them, or nil
function jobs_window.show_progress(count, line)
  local has_news = settings.word("news") ~= ""
  local shown = ("%d %s"):format(count, line or "")
  if shown == settings.word("progress") then
    return
  end
  settings.word("progress", shown)
  jobs_window.light(count > 0 or has_news)
  if not has_news then
    local more = count > 1 and (", and %d more"):format(count - 1) or ""
    reaper.Help_Set(line and ("tsbs-daw: %s%s"):format(line, more) or "", true)
  end
end

-- Whether the window is open, and takes a part of every tick.
function jobs_window.is_open()
  return alive()
end

-- Open the window as a script of its own, unless it is open.
function jobs_window.show()
  if not alive() then
    files.run_script(folder, FILE)
  end
end

-- Seconds left, from how far it came since it was first seen here; nil when that says nothing yet.
local function time_left(seen, fraction)
  local now = reaper.time_precise()
  seen.from_s, seen.from = seen.from_s or now, seen.from or fraction
  local gained = fraction - seen.from
  return gained > 0.02 and (1 - fraction) * (now - seen.from_s) / gained or nil
end

local function view_of_result(ticket, result, err)
  if err then
    return { line = err, retry = true }
  elseif result.state ~= "done" then
    return { line = tostring(result.error or result.state), retry = true }
  elseif ticket.trouble then
    local view = { line = ticket.trouble, retry = ticket.offer == nil, place = ticket.offer == "gone" }
    if ticket.offer == "listen" then
      view.insert, view.stems = true, require("delivery").wanted(ticket, result) or {}
    end
    return view
  elseif not project.find(ticket.project, ticket) then
    return { line = OPEN:format(text.shown(ticket.project.name)), here = true }
  end
  return { line = "putting it into the project", fraction = 1 }
end

-- What the window shows of a ticket: line, fraction, and which buttons.
function jobs_window.view(spool, ticket, seen, desk)
  if desk:is_anothers(ticket) then
    return { line = "It belongs to another REAPER that is running.", foreign = true }
  end
  local result, err = spool:result(ticket.id)
  if result or err then
    return view_of_result(ticket, result, err)
  elseif ticket.trouble then
    return { line = ticket.trouble, retry = true }
  elseif ticket.stage == "requested" then
    local open = project.find(ticket.project, ticket)
    local line = open and "looking at what was selected" or "waiting for %s to be open"
    return { line = line:format(text.shown(ticket.project.name)) }
  elseif ticket.stage ~= "submitted" then
    return { line = "reading the audio", fraction = 0 }
  end
  local fraction, phrase = spool:progress(ticket.id)
  if not fraction then
    return { line = "Its folder is gone from the spool; separate the item anew." }
  end
  local left = time_left(seen, fraction)
  return {
    line = phrase .. (left and (", %s left"):format(text.duration(left)) or ""),
    fraction = fraction,
    cancel = true,
  }
end

-- Do what a button says. Returns a sentence if it cannot be.
function jobs_window.act(desk, spool, ticket, what)
  local ok, err = true, nil
  if what == "cancel" then
    ok, err = spool:cancel(ticket.id)
  elseif what == "dismiss" then
    spool:cancel(ticket.id)
    desk:drop(ticket)
  elseif what == "here" then
    ticket.project, ticket.place = project.reference(project.current()), "new tracks"
    ticket.owner = pending_jobs.me()
    ok, err = desk:keep(ticket)
    background.wake()
  elseif what == "insert" then
    preview.stop()
    ticket.trouble, ticket.offer, ticket.listen = nil, nil, nil
    ok, err = desk:keep(ticket)
    background.wake()
  elseif what == "retry" or what == "place" then
    local result, damaged = spool:result(ticket.id)
    if damaged or result and result.state ~= "done" then
      ok, err = spool:retry(ticket.id)
    end
    ticket.trouble, ticket.offer = nil, nil
    ticket.place = what == "place" and "new tracks" or ticket.place
    if ok then
      ok, err = desk:keep(ticket)
    end
    background.wake()
  end
  return not ok and err or nil
end

local BUTTONS = {
  { "cancel", "Cancel" },
  { "retry", "Retry" },
  { "insert", "Insert" },
  { "place", "Put on new tracks" },
  { "here", "Put into this project" },
}

-- Look at some tickets, as far as the tick allows, the next time at the ones after them: a hundred are a hundred files.
local function refresh(model, over)
  for _ = 1, #model.all do
    model.at = model.at % #model.all + 1
    local ticket = model.all[model.at]
    local seen = model.seen[ticket.id] or {}
    model.seen[ticket.id] = seen
    model.views[ticket.id] = jobs_window.view(model.spool, ticket, seen, model.desk)
    if over() then
      return
    end
  end
end

-- A button for each stem that plays it, or ends it.
local function draw_listening(window, stems)
  local said
  for index, stem in ipairs(stems) do
    if index > 1 then
      window:beside()
    end
    if window:button("Play " .. stem.name) then
      local ok, err = preview.play(stem.path)
      said = not ok and err or nil
    end
  end
  if preview.is_elsewhere() then
    window:text("They play in the Media Explorer; with the SWS extension installed, they play here.", true)
  end
  return said
end

local function draw_ticket(window, model, ticket)
  local view = model.views[ticket.id] or { line = "" }
  window:text(("%s %s  (%s)"):format(ticket.name, ticket.label or "", ticket.job.preset))
  if view.fraction then
    window:bar(view.fraction, view.line)
  else
    window:text(view.line, true)
  end
  local said
  local function button(what, label)
    if window:button(label) then
      said = jobs_window.act(model.desk, model.spool, ticket, what)
      model.look = clock.every(LOOK_EVERY_S)
    end
  end
  if view.stems then
    said = draw_listening(window, view.stems)
  end
  for _, entry in ipairs(BUTTONS) do
    if view[entry[1]] then
      button(entry[1], entry[2])
      window:beside()
    end
  end
  if not view.foreign then
    button("dismiss", "Dismiss")
  end
  window:gap()
  return said
end

local function draw_daemon(window, model, installed)
  if model.alive then
    return
  end
  if daemon.is_starting(model.spool) then
    window:text(STARTING, true)
  elseif #model.all > 0 then
    window:text(NO_DAEMON)
    if installed.start and window:button("Start it") then
      daemon.start(installed)
    end
  end
  window:gap()
end

local function draw(window, model, installed)
  settings.word("jobs_window", ("%.3f"):format(reaper.time_precise()))
  local over = clock.budget(DRAW_S)
  if model.look() then
    model.all, model.alive = model.desk:all(), model.spool:alive()
  end
  refresh(model, over)
  for sentence in settings.word("said"):gmatch("[^\n]+") do
    window:text(sentence)
  end
  draw_daemon(window, model, installed)
  if #model.all == 0 then
    window:text("Nothing is under way.", true)
  end
  for _, ticket in ipairs(model.all) do
    local said = window:part(model.seen[ticket.id] or {}, over(), function()
      return draw_ticket(window, model, ticket)
    end)
    if said then
      settings.word("said", said)
    end
  end
  if window:is_space_free() then
    reaper.Main_OnCommand(PLAY_STOP, 0)
  end
  return window:footer({ "Close" }) == nil
end

function jobs_window.run()
  local installed, err = settings.installed()
  local title, ui = "tsbs-daw: jobs", require("ui")
  if not installed then
    ui.open(title, 520, 160, function(window)
      window:text(err)
      return window:footer({ "Close" }) == nil
    end)
    return
  end
  local model = {
    desk = pending_jobs.at(installed.spool),
    spool = spools.at(installed.spool),
    seen = {},
    all = {},
    views = {},
    at = 0,
  }
  model.look = clock.every(LOOK_EVERY_S)
  ui.open(title, 520, 420, function(window)
    return draw(window, model, installed)
  end, function()
    preview.stop()
    settings.word("news", "")
    jobs_window.light((tonumber(settings.word("progress"):match("^%d+")) or 0) > 0)
    settings.word("jobs_window", "")
    settings.word("said", "")
  end, true)
end

return jobs_window
