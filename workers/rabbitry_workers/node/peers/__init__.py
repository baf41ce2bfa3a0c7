"""The other nodes, and everybody else who talks to this one: signs of life, announcements, control messages."""
