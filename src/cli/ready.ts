// What a person reads once Millrace is ready: how to produce, consume and look at the database.
import { isWildcard } from '../runtime/listening.ts';
import { formatAddress } from '../runtime/setting-types.ts';
import { version } from '../runtime/version.ts';
import type { Database, Server } from '../server.ts';

export function renderReady(server: Server): string {
  if (!server.settings.broker) return renderDelivery(server);
  const kafka = formatAddress(reachable(server.kafka[0]!));
  return `
Millrace ${version} is ready.

  Kafka     ${server.kafka.map(formatAddress).join(', ')}
  HTTP      ${server.httpUrl}/
  Database  ${server.database.description}

  produce   echo hello | kcat -b ${kafka} -P -t greetings
            kafka-console-producer.sh --bootstrap-server ${kafka} --topic greetings
  consume   kcat -b ${kafka} -C -t greetings -o beginning
            kafka-console-consumer.sh --bootstrap-server ${kafka} --topic greetings --from-beginning
${renderDatabase(server.database)}            SELECT topic, partition_offset, convert_from(value, 'UTF8') FROM kafka.messages LIMIT 10;

Ctrl-C stops it.

`;
}

function renderDelivery(server: Server): string {
  return `
Millrace ${version} is ready, without a broker.

  HTTP      ${server.httpUrl}/
  Database  ${server.database.description}

  events    curl -N '${server.httpUrl}/v1/stream?inbox=NAME&subscriber=NAME'

Ctrl-C stops it.

`;
}

function renderDatabase({ embedded, url }: Database): string {
  if (embedded === undefined) return `  SQL       psql ${shellWord(withoutPassword(url))}\n`;
  const { sockets, passwordFile } = embedded.directory;
  return `  SQL       psql -h ${shellWord(sockets)} -p ${embedded.port} -U millrace
            (psql does not come with the embedded PostgreSQL: apt-get install postgresql-client, or
            brew install libpq. Other programs: postgres://millrace@127.0.0.1:${embedded.port}/millrace,
            password in ${passwordFile})
`;
}

/** An address that can be connected to from here. */
function reachable(address: { readonly host: string; readonly port: number }) {
  return isWildcard(address.host) ? { host: 'localhost', port: address.port } : address;
}

function withoutPassword(url: string): string {
  return url.replace(/^(\w+:\/\/[^/:@]*):[^/@]*@/, '$1@').replace(/([?&])password=[^&]*&?/, '$1');
}

function shellWord(text: string): string {
  return /^[\w./:@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
