// Runs Apache Kafka in the foreground: node --import tsx compat/kafka/main.ts [--port N] [--data-dir DIR] [name=value…]
// With --classpath it only downloads Kafka and prints the Java class path. Prints "ready HOST:PORT" when it serves; SIGINT and SIGTERM stop it. Without --data-dir its data is temporary.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { kafkaClasspath, startKafka } from './kafka.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    port: { type: 'string', default: '0' },
    'data-dir': { type: 'string' },
    'advertised-port': { type: 'string' },
    classpath: { type: 'boolean' },
  },
});
if (values.classpath) {
  console.log(kafkaClasspath());
  process.exit(0);
}
const temporary = values['data-dir'] ? null : mkdtempSync(join(tmpdir(), 'compat-kafka-'));
const overrides = Object.fromEntries(positionals.map(line => line.split(/=(.*)/s).slice(0, 2)));
const advertisedPort = values['advertised-port'];
const server = await startKafka({
  port: Number(values.port),
  dataDir: values['data-dir'] ?? temporary!,
  overrides,
  ...(advertisedPort ? { advertisedPort: Number(advertisedPort) } : {}),
});
console.log(`ready ${server.bootstrap}`);

await new Promise<void>(resolve => {
  process.once('SIGINT', resolve);
  process.once('SIGTERM', resolve);
});
await server.stop();
if (temporary) rmSync(temporary, { recursive: true, force: true });
