// What the process that leads the log tells the others about an inbox's webhooks: its settings, its lanes, the index that
// lanes are read by, and the endpoint of millrace.yaml.
import type pg from 'pg';
import type { WebhookSettings } from './definition.ts';

/** In the transaction that opens the inbox, while nothing is written to it. */
export async function describeWebhook(
  client: pg.PoolClient,
  inbox: number,
  webhook: WebhookSettings | undefined,
): Promise<void> {
  const { rows } = await client.query<{ had: boolean }>(
    `UPDATE kafka.inboxes i SET webhook = $2 FROM kafka.inboxes o
     WHERE i.inbox_id = $1 AND o.inbox_id = $1 RETURNING o.webhook IS NOT NULL AS had`,
    [inbox, webhook === undefined ? null : JSON.stringify(webhook)],
  );
  if (webhook === undefined) return;
  if (!rows[0]!.had) await begin(client, inbox);
  const { url } = webhook;
  await client.query(
    'DELETE FROM kafka.webhook_endpoints WHERE inbox_id = $1 AND subscriber IS NULL AND of_file AND url IS DISTINCT FROM $2',
    [inbox, url ?? null],
  );
  if (url === undefined) return;
  await client.query(
    `INSERT INTO kafka.webhook_endpoints (inbox_id, url, of_file) VALUES ($1, $2, true)
     ON CONFLICT (inbox_id) WHERE subscriber IS NULL
       DO UPDATE SET url = excluded.url, secrets = '{}', enabled = true, reason = NULL, of_file = true, changed_at = now()
       WHERE NOT webhook_endpoints.of_file`,
    [inbox, url],
  );
}

/** What the inbox holds already was not meant for webhooks. */
async function begin(client: pg.PoolClient, inbox: number): Promise<void> {
  await client.query(
    `INSERT INTO kafka.webhook_lanes (inbox_id, lane) SELECT $1, lane FROM generate_series(0, 15) AS lane
     ON CONFLICT DO NOTHING`,
    [inbox],
  );
  const { rows: parts } = await client.query<{ id: number; first: bigint }>(
    'SELECT part_id AS id, first_seq AS first FROM kafka.inbox_parts WHERE inbox_id = $1 ORDER BY first_seq',
    [inbox],
  );
  for (const { id } of parts) await client.query('SELECT kafka.webhook_index($1)', [id]);
  const newest = parts.at(-1);
  if (newest === undefined) return;
  const { rows } = await client.query<{ end: bigint | null }>(
    `SELECT max(seq) AS end FROM kafka.inbox_part_${newest.id}`,
  );
  await client.query('UPDATE kafka.inboxes SET webhook_from = $2 WHERE inbox_id = $1', [
    inbox,
    rows[0]!.end ?? newest.first - 1n,
  ]);
}
