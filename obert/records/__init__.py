"""Records: one file a finished run, which is the truth, and where the run came from."""
