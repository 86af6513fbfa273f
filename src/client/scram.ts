// SCRAM as a client (RFC 5802, RFC 7677, KIP-84), without channel binding. The server's signature is verified: who has
// only the user's name, or a recorded exchange, cannot pass for the cluster.
import { createHash, createHmac, pbkdf2, randomBytes, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';
import { AuthenticationError } from './errors.ts';

const derive = promisify(pbkdf2);

const hashes = { 'SCRAM-SHA-256': 'sha256', 'SCRAM-SHA-512': 'sha512' } as const;
export type ScramMechanism = keyof typeof hashes;

/** RFC 7677 says 4096 at least. At the most: a hostile server's count would keep the thread pool busy for ever. */
const iterations = { least: 4096, most: 10_000_000 } as const;

export class ScramExchange {
  readonly #hash: 'sha256' | 'sha512';
  readonly #password: string;
  readonly #nonce: string;
  readonly #firstBare: string;
  #serverSignature: Buffer | undefined;

  /** `nonce`: printable, without commas; random but in tests. */
  constructor(
    mechanism: ScramMechanism,
    username: string,
    password: string,
    nonce = randomBytes(24).toString('base64'),
  ) {
    this.#hash = hashes[mechanism];
    this.#password = password;
    this.#nonce = nonce;
    this.#firstBare = `n=${username.replaceAll('=', '=3D').replaceAll(',', '=2C')},r=${nonce}`;
  }

  first(): Buffer {
    return Buffer.from(`n,,${this.#firstBare}`);
  }

  /** The answer to the server's first message. Rejects with AuthenticationError. */
  async final(serverFirst: Buffer): Promise<Buffer> {
    const message = serverFirst.toString('utf8');
    const attributes = read(message);
    const [nonce, salt] = [attributes.get('r'), attributes.get('s')];
    const count = /^\d{1,9}$/.test(attributes.get('i') ?? '') ? Number(attributes.get('i')) : 0;
    if (attributes.has('m') || nonce === undefined || salt === undefined || salt === '')
      refuse('said what is not SCRAM');
    if (!nonce.startsWith(this.#nonce) || nonce === this.#nonce) refuse('answered another exchange (nonce)');
    if (count < iterations.least || count > iterations.most) refuse(`wants ${attributes.get('i')} iterations`);
    const length = this.#hash === 'sha256' ? 32 : 64;
    // As it stands: Kafka prepares no strings, although the RFC would have it.
    const salted = await derive(this.#password, Buffer.from(salt, 'base64'), count, length, this.#hash);
    const clientKey = this.#hmac(salted, 'Client Key');
    const storedKey = createHash(this.#hash).update(clientKey).digest();
    const withoutProof = `c=biws,r=${nonce}`;
    const authenticated = `${this.#firstBare},${message},${withoutProof}`;
    const proof = this.#hmac(storedKey, authenticated);
    for (let i = 0; i < proof.length; i++) proof[i]! ^= clientKey[i]!;
    this.#serverSignature = this.#hmac(this.#hmac(salted, 'Server Key'), authenticated);
    return Buffer.from(`${withoutProof},p=${proof.toString('base64')}`);
  }

  /** Throws AuthenticationError unless the server's last message proves that it knows the credentials. */
  verify(serverFinal: Buffer): void {
    const attributes = read(serverFinal.toString('utf8'));
    const error = attributes.get('e');
    if (error !== undefined) refuse(`refused the credentials (${error})`);
    const signature = Buffer.from(attributes.get('v') ?? '', 'base64');
    const expected = this.#serverSignature;
    if (expected === undefined || signature.length !== expected.length || !timingSafeEqual(signature, expected)) {
      refuse('does not know the credentials itself (server signature)');
    }
  }

  #hmac(key: Buffer, text: string): Buffer {
    return createHmac(this.#hash, key).update(text).digest();
  }
}

function refuse(what: string): never {
  throw new AuthenticationError(`SCRAM: the broker ${what}`);
}

/** `a=…,b=…`; base64 values hold `=` themselves. */
function read(message: string): Map<string, string> {
  return new Map(message.split(',').map(part => [part.slice(0, 1), part.charAt(1) === '=' ? part.slice(2) : '']));
}
