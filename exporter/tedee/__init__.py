"""Client of the Tedee API: requests, parsing of responses, credentials and errors."""
