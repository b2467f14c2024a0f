"""The client for callers that are not asynchronous."""
