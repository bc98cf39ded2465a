-- REAPER 7 runs Lua 5.4, REAPER 6 Lua 5.3: what both have.
std = "lua53"
max_line_length = 120
read_globals = { "reaper" }
globals = { "gfx" }
