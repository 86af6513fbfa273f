// JSON without losing a digit: numbers stay decimal, so that 9223372036854775807 and 1e400 can be told from their neighbours.

export type Exact = null | boolean | string | ExactNumber | Exact[] | { [name: string]: Exact };

/** A number's digits without the zeros at their ends, and the power of ten they are counted in: 1.50 is 15 and -1. */
export interface ExactNumber {
  readonly digits: string;
  readonly exponent: number;
}

const numberOrString = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?/g;
const mark = '\u0000';

export function parseExact(text: string): Exact {
  const marked = text.replaceAll(numberOrString, token => (token[0] === '"' ? token : `"\\u0000${token}"`));
  return JSON.parse(marked, (_name, value) =>
    typeof value === 'string' && value.startsWith(mark) ? exactNumber(value.slice(1)) : value,
  );
}

export const isNumber = (value: Exact): value is ExactNumber =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && typeof value.digits === 'string';

function exactNumber(text: string): ExactNumber {
  const [, sign, whole, fraction = '', power = '0'] = /^(-?)(\d+)(?:\.(\d+))?(?:[eE](.+))?$/.exec(text)!;
  const digits = `${whole}${fraction}`.replace(/^0+/, '');
  const significant = digits.replace(/0+$/, '');
  if (significant === '') return { digits: '0', exponent: 0 };
  return {
    digits: sign! + significant,
    exponent: Number(power) - fraction.length + digits.length - significant.length,
  };
}

export const showExact = (value: Exact | undefined): string =>
  value === undefined
    ? 'nothing'
    : JSON.stringify(value, (_name, inner) => (isNumber(inner) ? `${inner.digits}e${inner.exponent}` : inner));
