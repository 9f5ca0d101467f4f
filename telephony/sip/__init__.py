"""SIP and RTP."""
