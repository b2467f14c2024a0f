"""Jobs over many pages: downloads, exports, uploads. Each ends with a report, and goes on where it broke off."""
