"""Header readers for the audio formats, one module per family; `audio.probe` picks the one that a file needs.

They are plain Python on purpose: the header of a hostile file lies, so this code checks every index, never allocates
as much as a file asks for, and runs in bounded time.
"""
