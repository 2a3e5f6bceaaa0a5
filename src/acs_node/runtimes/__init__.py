"""Action proxies, which run inside sandboxes, and the recipes of their images.

Nothing here is imported by the node: a proxy is a program of its own that an engine starts.
"""
