"""The page in the browser: the queue, a player, watch folders and models. It stores nothing but its token."""
