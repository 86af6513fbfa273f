// COPY … FROM STDIN on a connection of a pool: pg's own queries refuse it. (Sessions have it too, session.ts.)
import pg from 'pg';
import type { CopyPayload } from './copy.ts';

/**
 * Runs the statements of `sql` as one simple query. Each COPY … FROM STDIN (FORMAT binary) in it takes the next of `copies`;
 * their data is sent at once, without waiting for CopyInResponse: the server discards it when an earlier statement failed.
 */
export function copyIn(client: pg.ClientBase, sql: string, copies: readonly CopyPayload[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const query = new pg.Query(sql, error => (error ? reject(error) : resolve()));
    const submit = query.submit.bind(query);
    Object.assign(query, {
      submit(connection: pg.Connection): unknown {
        const failed: unknown = submit(connection);
        for (const { chunks } of copies) for (const chunk of chunks) connection.stream.write(chunk);
        return failed;
      },
      handleCopyInResponse() {}, // what it asks for is under way
    });
    client.query(query);
  });
}
