// The text form of a Postgres array (manual, "Array Input and Output Syntax"): {1,NULL,"a \"b\"",{…}}, perhaps with
// bounds before it ([0:1]={1,2}), which are dropped.

export interface ArrayElements {
  begin(): void;
  end(): void;
  /** Between two elements, or arrays. */
  separator(): void;
  /** The element's text; null for NULL. */
  element(bytes: Buffer, start: number, end: number): void;
  nullElement(): void;
}

const [open, close, quote, backslash] = [0x7b, 0x7d, 0x22, 0x5c];

export function readArray(bytes: Buffer, start: number, end: number, delimiter: number, elements: ArrayElements): void {
  let at = start;
  if (bytes[at] === 0x5b) at = bytes.indexOf('={', at, 'latin1') + 1;
  let first = true;
  while (at < end) {
    const byte = bytes[at]!;
    if (byte === open) {
      if (!first) elements.separator();
      elements.begin();
      first = true;
      at++;
    } else if (byte === close) {
      elements.end();
      first = false;
      at++;
    } else if (byte === delimiter) {
      at++;
    } else {
      if (!first) elements.separator();
      first = false;
      at = byte === quote ? quoted(bytes, at + 1, elements) : plain(bytes, at, delimiter, elements);
    }
  }
}

function plain(bytes: Buffer, start: number, delimiter: number, elements: ArrayElements): number {
  let at = start;
  while (bytes[at] !== delimiter && bytes[at] !== close) at++;
  if (at - start === 4 && bytes.toString('latin1', start, at) === 'NULL') elements.nullElement();
  else elements.element(bytes, start, at);
  return at;
}

function quoted(bytes: Buffer, start: number, elements: ArrayElements): number {
  let at = start;
  let escapes = 0;
  while (bytes[at] !== quote) {
    if (bytes[at] === backslash) {
      escapes++;
      at++;
    }
    at++;
  }
  if (escapes === 0) {
    elements.element(bytes, start, at);
  } else {
    const plainText = Buffer.allocUnsafe(at - start - escapes);
    let to = 0;
    for (let from = start; from < at; from++) {
      if (bytes[from] === backslash) from++;
      plainText[to++] = bytes[from]!;
    }
    elements.element(plainText, 0, plainText.length);
  }
  return at + 1;
}
