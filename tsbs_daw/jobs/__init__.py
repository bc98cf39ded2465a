"""Jobs: their contract, their queue, the workers that run them, and the daemon around it all."""
