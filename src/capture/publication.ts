// What publications hold and which partitions a table has, from the catalogue alone. PostgreSQL's own views and functions
// lock what they tell of: pg_publication_tables (from 16 on) and pg_partition_tree wait for whoever alters or drops any of
// the tables, for as long as that transaction lasts, and the view then fails ("could not open relation with OID").

/** A subquery of oids: `table` (an oid), and all partitions below it. */
export const treeOf = (table: string): string => `(WITH RECURSIVE tree (oid) AS (
    SELECT ${table} UNION ${below})
  SELECT oid FROM tree)`;

/** A subquery of oids: what `publication` (its name) has, and all partitions below. `version`: server_version_num. */
export const publishedBy = (publication: string, version: number): string => `(WITH RECURSIVE tree (oid) AS (
    SELECT r.prrelid FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid WHERE p.pubname = ${publication}
    ${version >= 150_000 ? `UNION ${ofSchemas(publication)}` : ''}
    UNION ${below})
  SELECT oid FROM tree)`;

const ofSchemas = (publication: string): string => `SELECT c.oid
  FROM pg_publication p JOIN pg_publication_namespace s ON s.pnpubid = p.oid JOIN pg_class c ON c.relnamespace = s.pnnspid
  WHERE p.pubname = ${publication}`;

const below = `SELECT i.inhrelid FROM tree t JOIN pg_class c ON c.oid = t.oid AND c.relkind = 'p'
  JOIN pg_inherits i ON i.inhparent = t.oid`;
