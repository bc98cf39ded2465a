"""The page in the browser: the queue, songs to listen to, watch folders, models. It keeps nothing of its own."""
