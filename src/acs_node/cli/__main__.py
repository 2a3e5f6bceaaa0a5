"""``python -m acs_node.cli``: the ``acs`` command of this interpreter."""

from acs_node.cli import main

main(prog_name="acs")
