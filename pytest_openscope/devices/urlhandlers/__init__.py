"""URL schemes for pyserial; it imports ``protocol_<scheme>`` from here by itself."""
