"""Many estimates searched: the best legal layout, and questions asked backwards."""
