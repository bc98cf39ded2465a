-- luacheck --config tsbs_daw/integrations/ardour_scripts/.luacheckrc tsbs_daw/integrations/ardour_scripts tests/ardour
std = "lua53"
max_line_length = 120
globals = { "ardour", "signals", "factory" }
read_globals = {
  "ARDOUR", "ArdourUI", "C", "Editing", "Editor", "LuaDialog", "LuaSignal", "PBD", "Session", "Temporal",
  os = { fields = { "forkexec" } },
}
