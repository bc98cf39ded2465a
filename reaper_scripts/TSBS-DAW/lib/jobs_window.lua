-- What is under way: how far, how long still, and what went wrong; to cancel, retry, place or dismiss.
local require = ...
local clock, project = require("clock"), require("project")
local background, daemon = require("background"), require("daemon")
local notices, preview = require("notices"), require("preview")
local settings = require("settings")
local pending_jobs, spools, text = require("pending_jobs"), require("spool"), require("text")

local jobs_window = {}

local LOOK_EVERY_S = 0.25
local BEAT_EVERY_S = 0.5
local PLAY_STOP = 40044 -- "Transport: Play/stop"
local NO_DAEMON =
  "No daemon is running. Your jobs wait until one is started; if it does not start, run tsbs-daw: setup."
local OPEN = "Done; open %s to receive it, or put it into the project in front."
local STARTING = "Starting the daemon; the first start takes a few seconds."

-- Seconds left, from how far it came since it was first seen here; nil when that says nothing yet.
local function time_left(seen, fraction)
  local now = reaper.time_precise()
  seen.from_s, seen.from = seen.from_s or now, seen.from or fraction
  local gained = fraction - seen.from
  return gained > 0.02 and (1 - fraction) * (now - seen.from_s) / gained or nil
end

local function view_of_result(ticket, result, err, pause)
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
  elseif not project.find(ticket.project, ticket, pause) then
    return { line = OPEN:format(text.shown(ticket.project.name)), here = true }
  end
  return { line = "putting it into the project", fraction = 1 }
end

-- What the window shows of a ticket: line, fraction, and which buttons.
function jobs_window.view(spool, ticket, seen, desk, pause)
  if desk:is_anothers(ticket) then
    return { line = "It belongs to another running REAPER.", foreign = true }
  end
  local result, err = spool:result(ticket.id, pause)
  if result or err then
    return view_of_result(ticket, result, err, pause)
  elseif ticket.trouble then
    return { line = ticket.trouble, retry = true }
  elseif ticket.stage == "requested" then
    local open = project.find(ticket.project)
    local line = open and "examining the selection" or "waiting for %s to be opened"
    return { line = line:format(text.shown(ticket.project.name)) }
  elseif ticket.stage ~= "submitted" then
    return { line = "reading the audio", fraction = 0 }
  end
  local fraction, phrase = spool:progress(ticket.id)
  if not fraction then
    return { line = "Its folder is gone from the spool; separate the item again." }
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

-- Whether two views of a ticket look alike. The stems of a result do not change.
local function is_same(one, other)
  for key, value in pairs(one) do
    if other[key] ~= value and key ~= "stems" then
      return false
    end
  end
  for key in pairs(other) do
    if one[key] == nil then
      return false
    end
  end
  return true
end

local function are_same(tickets, others)
  local same = #tickets == #others
  for index = 1, same and #tickets or 0 do
    same = same and tickets[index].id == others[index].id
  end
  return same
end

-- Look at the daemon and at every ticket, again and again; `model.is_new` says that something is not as it was shown.
local function keep_up(model, pause, rest)
  while true do
    if model.look() then
      local all = model.desk:all(pause)
      local alive_now, starting = model.spool:alive(), daemon.is_starting(model.spool)
      model.is_new = model.is_new or not are_same(all, model.all)
      model.is_new = model.is_new or alive_now ~= model.alive or starting ~= model.starting
      model.all, model.alive, model.starting = all, alive_now, starting
      pause()
      for _, ticket in ipairs(all) do
        model.seen[ticket.id] = model.seen[ticket.id] or {}
        local view = jobs_window.view(model.spool, ticket, model.seen[ticket.id], model.desk, pause)
        model.is_new = model.is_new or not is_same(view, model.views[ticket.id] or {})
        model.views[ticket.id] = view
        pause()
      end
    end
    rest()
  end
end

-- Whether there is something new to show. Looking for it has half of a tick, and drawing it has the next one.
local function look(model)
  if model.beat() then
    settings.word("jobs_window", ("%.3f"):format(reaper.time_precise()))
  end
  local said = settings.word("said")
  if model.is_new or said ~= model.said then
    model.is_new, model.said = false, said
    return true
  end
  local _, half = clock.budget()
  model.keep_up(half)
  return false
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
  if model.starting then
    window:text(STARTING, true)
  elseif #model.all > 0 then
    window:text(NO_DAEMON)
    if installed.start and window:button("Start it") then
      daemon.start(installed)
      model.look = clock.every(LOOK_EVERY_S)
    end
  end
  window:gap()
end

local function draw(window, model, installed)
  for sentence in model.said:gmatch("[^\n]+") do
    window:text(sentence)
  end
  draw_daemon(window, model, installed)
  if #model.all == 0 then
    window:text("Nothing is in progress.", true)
  end
  for _, ticket in ipairs(model.all) do
    local said = window:part(model.seen[ticket.id] or {}, draw_ticket, window, model, ticket)
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
    is_new = true,
  }
  model.look, model.beat = clock.every(LOOK_EVERY_S), clock.every(BEAT_EVERY_S)
  model.keep_up = clock.sliced(function(pause, rest)
    keep_up(model, pause, rest)
  end)
  local function draw_all(window)
    return draw(window, model, installed)
  end
  local function closed()
    preview.stop()
    settings.word("news", "")
    notices.light((tonumber(settings.word("progress"):match("^%d+")) or 0) > 0)
    settings.word("jobs_window", "")
    settings.word("said", "")
  end
  ui.open(title, 520, 420, draw_all, closed, true, function()
    return look(model)
  end)
end

return jobs_window
