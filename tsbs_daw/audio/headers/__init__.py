"""What the headers of the audio formats say: one module per family, each a pure reader of bytes.

They are plain Python on purpose. A header is where a hostile file lies, and this code indexes nothing unchecked,
allocates nothing that a file asks for, and takes bounded time.
"""
