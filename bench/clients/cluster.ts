// Millrace's own client, where the bench writes whole batches or asks where a topic ends.
import { Cluster } from '../../src/client/cluster.ts';

export function clusterAt(bootstrap: string): Cluster {
  const [host = '', port] = bootstrap.split(':');
  return new Cluster({ clientId: 'millrace-bench', bootstrap: [{ host, port: Number(port) }] });
}
