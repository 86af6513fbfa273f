// Logging in to a broker: SaslHandshake, then the mechanism's messages in SaslAuthenticate (KIP-43, KIP-152, KIP-368).
import { ErrorCode, errorOf } from '../protocol/errors.ts';
import { SaslHandshake } from '../protocol/messages/17-sasl-handshake.ts';
import { SaslAuthenticate } from '../protocol/messages/36-sasl-authenticate.ts';
import type { Request } from './connection.ts';
import { AuthenticationError } from './errors.ts';
import { ScramExchange, type ScramMechanism } from './scram.ts';

export interface SaslOptions {
  readonly mechanism: 'PLAIN' | ScramMechanism;
  readonly username: string;
  readonly password: string;
}

/** Returns after how many ms the broker wants it again; 0: never. Rejects with AuthenticationError. */
export async function authenticate(request: Request, { mechanism, username, password }: SaslOptions): Promise<number> {
  const { errorCode, mechanisms } = await request(SaslHandshake, { mechanism }, { least: 1, most: 1 });
  if (errorCode !== ErrorCode.NONE) {
    throw new AuthenticationError(`the broker does not take ${mechanism}; it takes ${mechanisms.join(', ') || 'none'}`);
  }
  const send = async (bytes: Buffer) => {
    const answer = await request(SaslAuthenticate, { authBytes: bytes });
    if (answer.errorCode === ErrorCode.NONE) return answer;
    const why = answer.errorMessage || errorOf(answer.errorCode).name;
    throw new AuthenticationError(`the broker refused the login of ${username}: ${why}`);
  };
  if (mechanism === 'PLAIN') {
    const { sessionLifetimeMs } = await send(Buffer.from(`\0${username}\0${password}`));
    return Number(sessionLifetimeMs);
  }
  const exchange = new ScramExchange(mechanism, username, password);
  const { authBytes: serverFirst } = await send(exchange.first());
  const { authBytes: serverFinal, sessionLifetimeMs } = await send(await exchange.final(serverFirst));
  exchange.verify(serverFinal);
  return Number(sessionLifetimeMs);
}
