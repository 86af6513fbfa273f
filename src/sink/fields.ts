// Where the fields of an object lie in JSON that is known to be well formed.

export interface FieldPlace {
  /** Undefined of a value that has no fields: it is all there is. */
  readonly name: string | undefined;
  readonly from: number;
  readonly to: number;
}

const space = /\s/;

/**
 * The fields of the object that begins at `start`, or the one value that does. Undefined where the bytes do not tell which
 * field is which: a name twice, or names that could make an envelope of the object.
 */
export function findFields(bytes: Buffer, start: number): readonly FieldPlace[] | undefined {
  const text = bytes.toString('latin1');
  const skipSpace = (from: number): number => {
    let at = from;
    while (space.test(text[at] ?? '')) at++;
    return at;
  };
  let at = skipSpace(start);
  if (text[at] !== '{') return text[at] === '[' ? undefined : [{ name: undefined, from: at, to: valueEnd(text, at) }];
  const found: FieldPlace[] = [];
  const names = new Set<string>();
  at = skipSpace(at + 1);
  while (text[at] === '"') {
    const nameEnd = valueEnd(text, at);
    const name = JSON.parse(bytes.toString('utf8', at, nameEnd)) as string;
    if (names.has(name) || name === '__proto__') return undefined;
    names.add(name);
    const from = skipSpace(skipSpace(nameEnd) + 1);
    const to = valueEnd(text, from);
    found.push({ name, from, to });
    at = skipSpace(to);
    if (text[at] === ',') at = skipSpace(at + 1);
  }
  return names.has('schema') && names.has('payload') ? undefined : found;
}

/** Where the value ends that begins at `at`. */
function valueEnd(text: string, start: number): number {
  let depth = 0;
  for (let at = start; ; at++) {
    const char = text[at];
    if (char === undefined) return at;
    if (char === '"') {
      for (at++; text[at] !== '"'; at++) if (text[at] === '\\') at++;
    } else if (char === '{' || char === '[') {
      depth++;
    } else if (char === '}' || char === ']') {
      if (depth === 0) return at;
      depth--;
    } else if (depth > 0 || !/[\s,:]/.test(char)) {
      continue;
    } else {
      return at;
    }
    if (depth === 0) return at + 1;
  }
}
