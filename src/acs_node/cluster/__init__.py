"""The nodes of a cluster as processes of their own, and all of one on this machine.

``config`` has the settings, ``process`` what every node does from its start to its end,
``controller``, ``scheduler`` and ``invoker`` what is particular to each, ``local`` starts them all.
"""
