// The numbers inside a record: zigzag varints of 32 bits, and of 64 for the distance between two timestamps (Kafka's
// documentation, "Record"). Written without a bigint wherever 32 bits are enough.

const zigzag = (value: number): number => ((value << 1) ^ (value >> 31)) >>> 0;
const fitsInt32 = (value: number | bigint): boolean => value >= -0x8000_0000 && value <= 0x7fff_ffff;
const zigzag64 = (value: bigint): bigint => BigInt.asUintN(64, (value << 1n) ^ (value >> 63n));

/** Of an int32. */
export function varintBytes(value: number): number {
  let bytes = 1;
  for (let rest = zigzag(value) >>> 7; rest > 0; rest >>>= 7) bytes++;
  return bytes;
}

/** Writes an int32; returns where it ends. */
export function writeVarint(bytes: Buffer, start: number, value: number): number {
  let at = start;
  let rest = zigzag(value);
  while (rest > 0x7f) {
    bytes[at++] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  bytes[at++] = rest;
  return at;
}

/** Of an int64; a number is a safe integer. */
export function varlongBytes(value: number | bigint): number {
  if (fitsInt32(value)) return varintBytes(Number(value));
  let bytes = 1;
  for (let rest = zigzag64(BigInt(value)) >> 7n; rest > 0n; rest >>= 7n) bytes++;
  return bytes;
}

/** Writes an int64; a number is a safe integer. Returns where it ends. */
export function writeVarlong(bytes: Buffer, start: number, value: number | bigint): number {
  if (fitsInt32(value)) return writeVarint(bytes, start, Number(value));
  let at = start;
  let rest = zigzag64(BigInt(value));
  while (rest > 0x7fn) {
    bytes[at++] = Number(rest & 0x7fn) | 0x80;
    rest >>= 7n;
  }
  bytes[at++] = Number(rest);
  return at;
}
