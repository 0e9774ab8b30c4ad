"""Pictures and pages about a run, made from what is public about it."""
