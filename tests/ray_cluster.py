"""A Ray cluster of two nodes on this machine, which `test_cluster.py` starts in a process of its own.

It prints the port for its clients, ends a node for each line that it reads, and itself at the end of its input.
"""

import socket
import sys

from ray.cluster_utils import Cluster


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def main():
    port = free_port()
    # The head runs nothing: what is lost with a node is never the cluster itself.
    head = {"num_cpus": 0, "include_dashboard": False, "ray_client_server_port": port}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    print(port, flush=True)
    for _ in sys.stdin:
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        print("removed", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
