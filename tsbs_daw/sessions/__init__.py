"""Writers for the session files of DAWs."""
