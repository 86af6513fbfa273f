// Pairs a declared API with the function that serves it. handlers/index.ts lists the pairs; ApiVersions, dispatch
// and the protocol coverage document are derived from that list.
import type { Api, RequestOf, ResponseOf } from '../protocol/schema.ts';
import type { RequestContext } from './context.ts';

/** `undefined` answers nothing, which only Produce with acks=0 may do. */
export type Handle<A extends Api> = (
  request: RequestOf<A>,
  context: RequestContext,
) => ResponseOf<A> | undefined | Promise<ResponseOf<A> | undefined>;

export interface Handler<A extends Api = Api> {
  readonly api: A;
  /** First and last version served; the codec may know older ones. */
  readonly versions: readonly [number, number];
  readonly handle: Handle<A>;
}

export function handler<A extends Api>(
  api: A,
  handle: Handle<A>,
  versions: readonly [number, number] = api.versions,
): Handler {
  return { api, versions, handle } as unknown as Handler;
}
