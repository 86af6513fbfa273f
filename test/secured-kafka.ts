// An Apache Kafka that takes every login there is: PLAIN (bob) and SCRAM (ann), with and without TLS, and certificates; its
// port without any stays open for those who look. Its authority is made for this run.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type KafkaServer, kafkaIsMissing, startKafka } from '../compat/kafka/kafka.ts';
import { type Certificates, cannotMakeCertificates, makeCertificates } from './certificates.ts';
import { freePort } from './free-port.ts';

/** Why it cannot be run here, or false. */
export const securedKafkaIsMissing = (): string | false => kafkaIsMissing() || cannotMakeCertificates();

export const logins = {
  bob: { mechanism: 'PLAIN', username: 'bob', password: 'plain secret' },
  ann256: { mechanism: 'SCRAM-SHA-256', username: 'ann', password: 'scram secret' },
  ann512: { mechanism: 'SCRAM-SHA-512', username: 'ann', password: 'scram secret' },
} as const;

export class SecuredKafka {
  readonly certificates: Certificates;
  /** saslTls and tls are localhost's. */
  readonly ports: { readonly plain: number; readonly sasl: number; readonly saslTls: number; readonly tls: number };
  readonly #directory: string;
  readonly #overrides: Record<string, string>;
  #server: KafkaServer | undefined;

  private constructor(directory: string, ports: SecuredKafka['ports']) {
    this.#directory = directory;
    this.ports = ports;
    this.certificates = makeCertificates(directory, ['DNS:localhost'], 'ann');
    const server = join(directory, 'server.pem');
    // Key and certificate in one file, as Kafka reads them.
    const { key, cert } = this.certificates.server;
    writeFileSync(server, readFileSync(key, 'utf8') + readFileSync(cert, 'utf8'));
    this.#overrides = {
      'sasl.enabled.mechanisms': 'PLAIN,SCRAM-SHA-256,SCRAM-SHA-512',
      ...Object.fromEntries(['sasl_plaintext', 'sasl_ssl'].flatMap(loginModules)),
      'listener.name.ssl.ssl.client.auth': 'required',
      'ssl.keystore.type': 'PEM',
      'ssl.keystore.location': server,
      'ssl.truststore.type': 'PEM',
      'ssl.truststore.location': this.certificates.authority,
    };
  }

  static async start(directory: string, overrides: Record<string, string> = {}): Promise<SecuredKafka> {
    const kafka = new SecuredKafka(directory, {
      plain: await freePort(),
      sasl: await freePort(),
      saslTls: await freePort(),
      tls: await freePort(),
    });
    Object.assign(kafka.#overrides, overrides);
    await kafka.start();
    return kafka;
  }

  async start(): Promise<void> {
    const { plain, sasl, saslTls, tls } = this.ports;
    this.#server = await startKafka({
      port: plain,
      dataDir: join(this.#directory, 'kafka'),
      heap: '400M',
      listeners: {
        SASL_PLAINTEXT: `127.0.0.1:${sasl}`,
        SASL_SSL: `localhost:${saslTls}`,
        SSL: `localhost:${tls}`,
      },
      scramUsers: { ann: logins.ann256.password },
      overrides: this.#overrides,
    });
  }

  async kill(): Promise<void> {
    await this.#server?.kill();
  }

  async stop(): Promise<void> {
    await this.#server?.stop();
  }
}

function loginModules(listener: string): [string, string][] {
  const security = 'org.apache.kafka.common.security';
  const { username, password } = logins.bob;
  return [
    [
      `listener.name.${listener}.plain.sasl.jaas.config`,
      `${security}.plain.PlainLoginModule required user_${username}="${password}";`,
    ],
    ...[256, 512].map((bits): [string, string] => [
      `listener.name.${listener}.scram-sha-${bits}.sasl.jaas.config`,
      `${security}.scram.ScramLoginModule required;`,
    ]),
  ];
}
