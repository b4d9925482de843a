"""Pictures of runs and of search trees."""
