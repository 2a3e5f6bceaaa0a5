"""The ``acs`` command. Each module of this package holds one group of its commands.

Modules import at the top only what ``acs --help`` needs: httpx and rich load when a command runs,
and what a server is made of loads when one is started.
"""

from typing import Any

import click

from acs_node.cli.actions import action
from acs_node.cli.activations import activation
from acs_node.cli.certificates import cert
from acs_node.cli.cluster import cluster, config, controller, invoker, scheduler
from acs_node.cli.deploy import deploy
from acs_node.cli.errors import Interrupted
from acs_node.cli.images import images
from acs_node.cli.namespaces import namespace as namespaces
from acs_node.cli.options import GlobalOptions, connection_options
from acs_node.cli.packages import package
from acs_node.cli.properties import properties
from acs_node.cli.replay import replay
from acs_node.cli.servers import demo, standalone, version
from acs_node.cli.simulations import plan
from acs_node.cli.triggers import rule, trigger

__all__ = ["main"]


class _Interruptible(click.Group):
    """A group that ends as other programs do when it is interrupted."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            raise Interrupted("interrupted") from None


@click.group(cls=_Interruptible, context_settings={"help_option_names": ["-h", "--help"]})
@connection_options(hidden=False)
@click.pass_context
def main(
    context: click.Context, apihost: str | None, auth: str | None, namespace: str | None
) -> None:
    """Run short functions in containers that pull.

    Server, key and namespace come from the options here (which may also follow the command), else
    from ACS_APIHOST, ACS_AUTH and ACS_NAMESPACE, else from ~/.wskprops or the file that
    WSK_CONFIG_FILE names.

    \b
    Exit codes:
      0    done
      1    the invoked activation ended with an error; a server or the demo failed; a replay
           differs; the target of a plan cannot be met
      2    the command line, a file it names, or a setting is wrong
      3    not found, conflict, or otherwise rejected by the server
      4    server not reachable, or key missing or not accepted
      124  the invoked activation still runs
      130  interrupted
    """
    # A test hands its transport over as the context's object.
    context.obj = GlobalOptions(apihost, auth, namespace, transport=context.obj)


for command in (
    action,
    activation,
    package,
    trigger,
    rule,
    deploy,
    properties,
    namespaces,
    images,
    standalone,
    controller,
    scheduler,
    invoker,
    cluster,
    config,
    cert,
    demo,
    replay,
    plan,
    version,
):
    main.add_command(command)
