"""The HTTP layer that all routes share: middleware, request bodies, ETags, cursors, long polls, problems."""
