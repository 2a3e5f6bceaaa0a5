"""A cluster for tests.

with started(schedulers=2) as cluster:
    client = Client(cluster.url, cluster.auth)
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from requirements import missing

from acs_node.cluster.etcd_process import EtcdMissing
from acs_node.cluster.local import LocalCluster


@contextmanager
def started(
    prepare: Callable[[Path], dict[str, Any]] | None = None, **settings: Any
) -> Iterator[LocalCluster]:
    """Run a cluster, whose nodes must all end with code 0; skip where there is no etcd.

    ``prepare`` puts files into its folder, and returns further settings.
    """
    # Not below tmp_path: a Unix socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="acs-") as name:
        folder = Path(name)
        made = LocalCluster(folder, **settings, **({} if prepare is None else prepare(folder)))
        try:
            made.start()
        except EtcdMissing as error:
            missing("etcd", str(error))
        try:
            yield made
            assert set(made.stop().values()) == {0}
        finally:
            made.kill()
