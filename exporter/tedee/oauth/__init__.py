"""OAuth: the token endpoint, refresh tokens and their files, and credentials that are refreshed."""
