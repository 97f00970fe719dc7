"""Frames and messages between processes: pure, no sockets, no clocks."""
