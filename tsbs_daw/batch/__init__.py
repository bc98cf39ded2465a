"""A batch: a folder of songs made ready to remix in one go, and a catalogue that tells what is where."""
