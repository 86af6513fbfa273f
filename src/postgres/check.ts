// Looks at a database before anything is done to it: can it be reached, is it new enough, may this role make or
// change schema kafka. What later features want (logical replication) is told, not demanded.
import type pg from 'pg';
import { codeOf, messageOf, type OperationalCode, OperationalError } from '../runtime/errors.ts';
import { PostgresClient } from './client.ts';

export const oldestMajorVersion = 14;
const connectTimeoutMs = 10_000;

export interface DatabaseReport {
  /** As the server prints it, such as 18.4. */
  readonly version: string;
  readonly role: string;
  readonly database: string;
  /** Sentences about what will not work, or is dangerous. */
  readonly warnings: readonly string[];
}

interface Facts {
  version: string;
  version_number: number;
  role: string;
  database: string;
  encoding: string;
  read_only: boolean;
  may_create_schema: boolean;
  schema_owner: string | null;
  owns_schema: boolean | null;
  wal_level: string;
  fsync: string;
  max_connections: number;
  may_replicate: boolean;
}

const factsQuery = `
  SELECT current_setting('server_version') AS version,
         current_setting('server_version_num')::int AS version_number,
         current_user::text AS role,
         current_database()::text AS database,
         (SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database())::text AS encoding,
         pg_is_in_recovery() OR current_setting('default_transaction_read_only')::bool AS read_only,
         has_database_privilege(current_database(), 'CREATE') AS may_create_schema,
         (SELECT pg_get_userbyid(nspowner)::text FROM pg_namespace WHERE nspname = 'kafka') AS schema_owner,
         (SELECT pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = 'kafka') AS owns_schema,
         current_setting('wal_level') AS wal_level,
         current_setting('fsync') AS fsync,
         current_setting('max_connections')::int AS max_connections,
         (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user) AS may_replicate`;

/** Throws an OperationalError when the database cannot serve. `connections`: how many Millrace will open. */
export async function checkDatabase(url: string, connections: number): Promise<DatabaseReport> {
  const client = connectingClient(url);
  const where = `${client.host}:${client.port}`;
  try {
    await client.connect();
  } catch (error) {
    await client.end().catch(() => {});
    throw explainConnectError(error, where, client);
  }
  try {
    const { rows } = await client.query<Facts>(factsQuery);
    return judge(rows[0]!, connections);
  } finally {
    await client.end();
  }
}

function connectingClient(url: string): pg.Client {
  try {
    const client = new PostgresClient(url, {
      application_name: 'millrace check',
      connectionTimeoutMillis: connectTimeoutMs,
    });
    client.on('error', () => {}); // whatever breaks here is told by the call that is waiting
    return client;
  } catch (cause) {
    if (cause instanceof OperationalError) throw cause;
    throw new OperationalError('the database URL cannot be read', {
      code: 'BAD_SETTING',
      hint: 'write it as postgres://user:password@host:5432/database',
      cause,
    });
  }
}

function judge(facts: Facts, connections: number): DatabaseReport {
  checkVersion(facts.version, facts.version_number);
  if (facts.encoding !== 'UTF8') {
    throw unsuitable(
      `database ${facts.database} has the encoding ${facts.encoding}`,
      `make one with UTF-8: createdb --encoding=UTF8 --template=template0 ${facts.database}_utf8`,
    );
  }
  if (facts.read_only) {
    throw unsuitable(`database ${facts.database} is read-only (a standby?)`, 'give the primary with --database-url');
  }
  if (facts.schema_owner !== null && !facts.owns_schema) {
    throw new OperationalError(
      `schema kafka in database ${facts.database} belongs to ${facts.schema_owner}, not to ${facts.role}`,
      {
        code: 'DATABASE_PERMISSION',
        hint: `connect as ${facts.schema_owner}, or run as a superuser: GRANT "${facts.schema_owner}" TO "${facts.role}"`,
      },
    );
  }
  if (facts.schema_owner === null && !facts.may_create_schema) {
    throw new OperationalError(`role ${facts.role} may not create schema kafka in database ${facts.database}`, {
      code: 'DATABASE_PERMISSION',
      hint: `run as the database's owner: CREATE SCHEMA kafka AUTHORIZATION "${facts.role}"`,
    });
  }
  return { version: facts.version, role: facts.role, database: facts.database, warnings: warnings(facts, connections) };
}

/** `number` is PostgreSQL's server_version_num: 140005 is 14.5. */
export function checkVersion(version: string, number: number): void {
  if (number >= oldestMajorVersion * 10_000) return;
  throw new OperationalError(`the database is PostgreSQL ${version}, which is too old`, {
    code: 'DATABASE_VERSION',
    hint: `use PostgreSQL ${oldestMajorVersion} or newer`,
  });
}

function warnings(facts: Facts, connections: number): string[] {
  const found: string[] = [];
  if (facts.fsync === 'off') found.push('fsync is off: a crash of the machine loses acknowledged records');
  if (connections > facts.max_connections) {
    found.push(`Millrace may open ${connections} connections, and max_connections is ${facts.max_connections}`);
  }
  if (facts.wal_level !== 'logical') {
    found.push(`wal_level is ${facts.wal_level}: producing from SQL and capturing tables will need logical`);
  }
  if (!facts.may_replicate) {
    found.push(`role ${facts.role} lacks REPLICATION: producing from SQL and capturing tables will need it`);
  }
  return found;
}

function explainConnectError(error: unknown, where: string, client: pg.Client): OperationalError {
  const fail = (message: string, code: OperationalCode, hint: string, retriable = false) =>
    new OperationalError(message, { code, hint, retriable, cause: error });
  if (error instanceof OperationalError) return error; // about TLS
  switch (codeOf(error)) {
    case '28P01':
    case '28000':
      return fail(
        `the database at ${where} refuses the role ${client.user} (${messageOf(error)})`,
        'DATABASE_UNREACHABLE',
        'correct the role and password in --database-url',
      );
    case '3D000':
      return fail(
        `there is no database ${client.database} at ${where}`,
        'DATABASE_UNREACHABLE',
        `make it (createdb ${client.database}) or correct --database-url`,
      );
    case '42501':
      return fail(
        `role ${client.user} may not connect to database ${client.database} at ${where}`,
        'DATABASE_PERMISSION',
        `run as a superuser: GRANT CONNECT ON DATABASE "${client.database}" TO "${client.user}"`,
      );
    case '57P03':
      return fail(`the database at ${where} is starting up`, 'DATABASE_UNREACHABLE', 'try again in a moment', true);
    default:
      return fail(
        `cannot reach the database at ${where} (${messageOf(error)})`,
        'DATABASE_UNREACHABLE',
        'start it, or correct --database-url',
        true,
      );
  }
}

function unsuitable(message: string, hint: string): OperationalError {
  return new OperationalError(message, { code: 'DATABASE_UNSUITABLE', hint });
}
