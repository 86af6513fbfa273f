// What commands ask of a running Millrace, over its HTTP API.
import { codeOf, messageOf, OperationalError } from '../runtime/errors.ts';

/** GET, or POST of `body`. Throws an OperationalError with what Millrace says to a request that it refuses. */
export async function ask<T>(url: string, body?: object): Promise<T> {
  let response: Response;
  try {
    const post = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
    response = await fetch(url, body && post);
  } catch (error) {
    const cause = (error as Error).cause ?? error;
    throw bad(
      `${url} does not answer (${codeOf(cause) ?? messageOf(cause)})`,
      'start Millrace, or say where it is with --http',
    );
  }
  const answer = (await response.json()) as T & { error?: string; hint?: string };
  if (!response.ok) {
    const hint = answer.hint ?? 'GET /api/mirrors lists them';
    throw new OperationalError(answer.error ?? `${url} answered ${response.status}`, { code: 'REFUSED', hint });
  }
  return answer;
}

export const print = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

export const bad = (message: string, hint: string): OperationalError =>
  new OperationalError(message, { code: 'BAD_SETTING', hint });
