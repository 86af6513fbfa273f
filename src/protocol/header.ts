// Request and response headers, and whole response and request frames (size, header, body). Flexible versions use
// request header 2 and response header 1 (KIP-482); the ApiVersions response keeps header 0 so that a client can
// read it before it knows the broker's versions (KIP-511).
import { encode, requestWriter, responseWriter } from './compile.ts';
import { type Api, isFlexible, type RequestToSend, type ResponseOf } from './schema.ts';
import { Reader, WireError } from './wire.ts';

const apiVersionsKey = 18;

export interface RequestHeader {
  readonly apiKey: number;
  readonly apiVersion: number;
  readonly correlationId: number;
  readonly clientId: string | null;
  /** Where the body begins in the frame. */
  readonly bodyAt: number;
}

/** The part every request header begins with: enough to find the API, and to refuse one. */
export function peekRequest(frame: Buffer): { apiKey: number; apiVersion: number; correlationId: number } {
  if (frame.length < 8) throw new WireError(`request of ${frame.length} bytes`);
  return { apiKey: frame.readInt16BE(0), apiVersion: frame.readInt16BE(2), correlationId: frame.readInt32BE(4) };
}

/** `frame` begins after the size. */
export function readRequestHeader(api: Api, frame: Buffer): RequestHeader {
  const { apiKey, apiVersion, correlationId } = peekRequest(frame);
  const reader = new Reader(frame, 8);
  // The client id keeps its two-byte length in every header version.
  const clientId = reader.nullableString();
  if (isFlexible(api, apiVersion)) reader.skipTags();
  return { apiKey, apiVersion, correlationId, clientId, bodyAt: reader.at };
}

const hasResponseTags = (api: Api, version: number): boolean => api.key !== apiVersionsKey && isFlexible(api, version);

/** A whole response: the chunks to write to the socket, in order. */
export function responseFrame<A extends Api>(
  api: A,
  version: number,
  correlationId: number,
  value: ResponseOf<A>,
): Buffer[] {
  return encode(writer => {
    writer.int32(0);
    writer.int32(correlationId);
    if (hasResponseTags(api, version)) writer.uvarint(0);
    responseWriter(api, version)(writer, value);
    writer.patchInt32(0, writer.length - 4);
  });
}

export interface ResponseHeader {
  readonly correlationId: number;
  readonly bodyAt: number;
}

/** `frame` begins after the size. */
export function readResponseHeader(api: Api, version: number, frame: Buffer): ResponseHeader {
  const reader = new Reader(frame);
  const correlationId = reader.int32();
  if (hasResponseTags(api, version)) reader.skipTags();
  return { correlationId, bodyAt: reader.at };
}

/** A whole request, for the client side. */
export function requestFrame<A extends Api>(
  api: A,
  version: number,
  correlationId: number,
  clientId: string | null,
  value: RequestToSend<A>,
): Buffer[] {
  return encode(writer => {
    writer.int32(0);
    writer.int16(api.key);
    writer.int16(version);
    writer.int32(correlationId);
    writer.nullableString(clientId);
    if (isFlexible(api, version)) writer.uvarint(0);
    requestWriter(api, version)(writer, value);
    writer.patchInt32(0, writer.length - 4);
  });
}
