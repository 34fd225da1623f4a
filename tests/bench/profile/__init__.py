"""Where a request's time goes, as a picture: `make bench-picture`."""
