// A part of a document that a program writes, between two marks that stay. `command` is the npm script that does.

export function replacePart(document: string, part: string, command: string, lines: readonly string[]): string {
  const begins = `<!-- ${part}: written by npm run ${command} -->`;
  const ends = `<!-- end of ${part} -->`;
  const begin = document.indexOf(begins);
  const end = document.indexOf(ends);
  if (begin < 0 || end < begin) throw new Error(`the document lacks the marks around its ${part}`);
  return document.slice(0, begin) + [begins, '', ...lines, '', ''].join('\n') + document.slice(end);
}
