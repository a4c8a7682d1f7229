/** An accepted event: a CloudEvents 1.0 object, its exact bytes and their digest. */
import type { RunId } from '../core/ids.ts';

export type JsonValue = null | boolean | number | string | readonly JsonValue[] | { readonly [key: string]: JsonValue };

/** CloudEvents 1.0, JSON format. Extension attributes are kept as they came. */
export interface CloudEvent {
  readonly specversion: '1.0';
  readonly id: string;
  readonly source: string;
  readonly type: string;
  readonly time?: string;
  readonly subject?: string;
  readonly datacontenttype?: string;
  readonly dataschema?: string;
  readonly data?: JsonValue;
  readonly data_base64?: string;
  readonly [extension: string]: JsonValue | undefined;
}

export interface Event {
  readonly runId: RunId;
  readonly cloudEvent: CloudEvent;
  /** The JSON that is delivered to the clone, UTF-8. */
  readonly bytes: Buffer;
  /** `sha256:` and 64 hex digits over `bytes`. */
  readonly digest: string;
  readonly acceptedNanos: bigint;
}
