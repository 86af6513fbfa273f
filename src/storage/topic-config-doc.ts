// The topic configs as the table of docs/topics.md. The document is written by `npm run docs:topics`, and a test
// finds one that does not agree with the code.
import { topicConfigSpecs } from './topic-config-table.ts';

export const tableBegins = '<!-- topic configs: written by npm run docs:topics -->';
export const tableEnds = '<!-- end of topic configs -->';

export function renderTopicConfigs(): string {
  const rows = topicConfigSpecs.map(({ name, type, default: fallback, server, ignored, doc }) => {
    const from = server === null ? '' : `\`${server}\``;
    return `| \`${name}\` | ${type} | ${fallback === '' ? '' : `\`${fallback}\``} | ${from} | ${ignored ? 'no' : 'yes'} | ${doc} |`;
  });
  const head = [
    '| Config | Type | Default | From the broker config | Obeyed | What it does |',
    '|---|---|---|---|---|---|',
  ];
  return [tableBegins, '', ...head, ...rows, '', tableEnds].join('\n');
}

/** `document` with the part between the two marks made anew. */
export function replaceTopicConfigs(document: string): string {
  const begin = document.indexOf(tableBegins);
  const end = document.indexOf(tableEnds);
  if (begin < 0 || end < begin) throw new Error('the document lacks the marks around its topic configs');
  return document.slice(0, begin) + renderTopicConfigs() + document.slice(end + tableEnds.length);
}
