"""Header readers for the audio formats, one module per family; `audio.probe` picks the one that a file needs.

They are plain Python on purpose: a hostile file lies in its header, and this code indexes nothing unchecked, allocates
nothing that a file asks for, and takes bounded time.
"""
