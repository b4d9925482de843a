"""Writing spans of tokens: contexts, sampling, the cache, guided writing."""
