"""The way of a song, in order: resolve, separate, render, encode, analyse, publish."""
