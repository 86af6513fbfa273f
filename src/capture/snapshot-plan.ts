// Cuts a table into pieces that can be read at the same time: ranges of its key, of about equal size by a sample of its
// pages; or, without a key, ranges of the pages of each partition. The cuts need not be right: the first piece begins
// before every row and the last ends behind every row, whatever is written meanwhile.
import type pg from 'pg';
import { quoteIdentifier } from '../postgres/replication.ts';
import { type Described, type Leaf, leavesOf } from './snapshot-description.ts';
import type { NewPiece, Place } from './snapshot-jobs.ts';
import { quoted } from './source.ts';

/** Less is not worth a piece. */
const pieceBytes = 4 * 1024 * 1024;
/** For each session, so that none is idle for long while another has a large piece left. */
const piecesPerReader = 4;
const sampledPages = 64;

/** Key columns of tables that are read by the places of their rows. */
export const byCtid: readonly string[] = ['ctid'];

/** `client` gives everything as text. */
export async function cutTable(client: pg.Client, described: Described, readers: number): Promise<NewPiece[]> {
  const leaves = await leavesOf(client, described.relation.id);
  const bytes = leaves.reduce((sum, leaf) => sum + leaf.bytes, 0);
  const count = piecesOf(bytes, readers);
  if (described.keyColumns.length === 0) {
    return leaves.flatMap(leaf => ofPages(leaf, Math.max(1, Math.round((count * leaf.bytes) / Math.max(1, bytes)))));
  }
  const pages = leaves.reduce((sum, leaf) => sum + leaf.pages, 0);
  const cuts = count === 1 ? [] : await sampleKeys(client, described, count, pages);
  return [null, ...cuts].map((after, i) => ({ leafId: 0, filenode: 0, after, until: cuts[i] ?? null }));
}

/** One partition alone, whatever key the table has. */
export const cutLeaf = (leaf: Leaf, readers: number): NewPiece[] => ofPages(leaf, piecesOf(leaf.bytes, readers));

function piecesOf(bytes: number, readers: number): number {
  const most = readers === 1 ? 1 : readers * piecesPerReader;
  return Math.max(1, Math.min(most, Math.floor(bytes / pieceBytes)));
}

/** The last of them is open: rows may be added behind the pages there are now. */
export function ofPages({ id, filenode, pages }: Omit<Leaf, 'bytes'>, count: number): NewPiece[] {
  const cuts = Array.from({ length: count - 1 }, (_, i) => Math.floor((pages * (i + 1)) / count));
  const places = [...new Set(cuts)].filter(page => page > 0).map((page): Place => [`(${page},0)`]);
  return [null, ...places].map((after, i) => ({ leafId: id, filenode, after, until: places[i] ?? null }));
}

async function sampleKeys(
  client: pg.Client,
  { relation, keyColumns, partitioned }: Described,
  count: number,
  pages: number,
): Promise<Place[]> {
  const percent = Math.min(100, (100 * sampledPages * count) / Math.max(1, pages));
  const key = keyColumns.map(quoteIdentifier);
  const { rows } = await client.query<string[]>({
    text: `WITH sample AS (
             SELECT ${key.join(', ')}, ntile($1) OVER (ORDER BY ${key.join(', ')}) AS "millrace piece"
             FROM ${partitioned ? '' : 'ONLY '}${quoted(relation)} TABLESAMPLE SYSTEM ($2))
           SELECT DISTINCT ON ("millrace piece") ${key.map(column => `${column}::text`).join(', ')} FROM sample
           ORDER BY "millrace piece", ${key.map(column => `${column} DESC`).join(', ')}`,
    values: [String(count), String(percent)],
    rowMode: 'array',
  });
  return rows.slice(0, -1);
}
