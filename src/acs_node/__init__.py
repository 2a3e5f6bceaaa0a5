"""The node programs around acs_core: HTTP, links, stores and sandboxes.

What can be decided without I/O is decided in ``acs_core``; modules here do it.
"""
