"""What is made of stems beside sessions: loops on the bar lines, and Stems files for DJ decks."""
