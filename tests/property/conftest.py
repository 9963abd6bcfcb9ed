"""Two slow cores must not fail a property for its time."""

from hypothesis import settings

settings.register_profile("house", deadline=None)
settings.load_profile("house")
