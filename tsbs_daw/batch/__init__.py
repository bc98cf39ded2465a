"""Batches: prepare a whole folder of songs for remixing, with a catalogue of the results."""
