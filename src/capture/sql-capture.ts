// The capture that serves kafka.produce. The function refuses until its slot is there, and when it is lost: what nobody
// reads would be lost. That it cannot be served keeps nothing else from starting.
import { Capture, type CaptureContext, type CaptureState } from './capture.ts';
import { readDefinition } from './definition.ts';
import { readProduceKey } from './produced-message.ts';

export interface SqlProduce {
  readonly autoCreate: boolean;
  readonly maxMessageBytes: number;
}

/** The name of the capture that serves kafka.produce. */
export const sqlCapture = 'sql';

/** Not yet started; undefined where kafka.produce is off. */
export async function openSqlCapture(
  context: CaptureContext,
  produce: SqlProduce | undefined,
): Promise<Capture | undefined> {
  const { pool } = context;
  // Slots are the whole server's, and others of its databases may have a Millrace too.
  const { rows } = await pool.query<{ slot: string; held: string | null }>(
    `SELECT 'millrace_sql_' || oid AS slot,
            (SELECT pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn))
             FROM pg_replication_slots WHERE slot_name = 'millrace_sql_' || oid) AS held
     FROM pg_database WHERE datname = current_database()`,
  );
  const { slot, held } = rows[0]!;
  if (produce === undefined) {
    await pool.query('UPDATE kafka.produce_settings SET enabled = false WHERE enabled');
    if (held !== null) {
      context.logger.warn(
        {
          slot,
          held,
          hint: `run: SELECT pg_drop_replication_slot('${slot}'); DELETE FROM kafka.captures WHERE name = '${sqlCapture}'`,
        },
        'sql.produce is off, and its replication slot still holds back WAL',
      );
    }
    return undefined;
  }
  const produceKey = await readProduceKey(pool);
  const nothing = { tables: ['none.none'], messages: false, slot, publication: 'millrace_sql' };
  const definition = { ...readDefinition(sqlCapture, nothing), tables: [] };
  const onState = (state: CaptureState, reason?: string, hint?: string): void => {
    if (state === 'failed') context.logger.warn({ reason, hint }, 'kafka.produce is off: SQL cannot make records');
    if (state === 'failed' || state === 'streaming') void enable(context, state === 'streaming', produce);
  };
  return new Capture(context, { definition, produceKey, onState });
}

async function enable(context: CaptureContext, enabled: boolean, produce: SqlProduce): Promise<void> {
  const query = 'UPDATE kafka.produce_settings SET enabled = $1, auto_create = $2, max_message_bytes = $3';
  try {
    await context.pool.query(query, [enabled, produce.autoCreate, produce.maxMessageBytes]);
  } catch (error) {
    // The capture has lost the same database, and says so again when it has it back.
    context.logger.warn({ err: error as Error, enabled }, 'kafka.produce was not told its state');
  }
}
