"""Twilio Media Streams, and the dialects that differ only in field names."""
