"""The async Python SDK for the Nudgescribe API."""
