"""What the controllers decide, as pure functions: observed objects in, actions out. No clock, network or
async; `now` is handed in as seconds since 1970. Observed objects are never changed in place.
"""
