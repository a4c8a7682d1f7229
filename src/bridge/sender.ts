/**
 * Sends one host stream and the messages between its bytes, as fast as credit and transport allow and no faster: at any
 * moment there is one window and one frame under way, however much there is to send.
 */
import { limits } from '../core/limits.ts';
import { frameTypes, streams } from './frame.ts';
import type { Link } from './link.ts';
import { encodeMessage, fileKinds, messages } from './message.ts';
import type { Message } from './message.ts';
import { encodeEnd, Outflow } from './streams.ts';

/** A control message, or bytes of the stream. Made lazily: 20,000 files are never all encoded at once. */
export type Outgoing =
  | { readonly kind: 'message'; readonly type: number; readonly payload: Buffer }
  | { readonly kind: 'bytes'; readonly bytes: Buffer };

/** One file, folder or symbolic link of a function; `path` is relative to /function. */
export type CodeEntry =
  | { readonly kind: 'file'; readonly path: string; readonly mode: number; readonly content: Buffer }
  | { readonly kind: 'folder'; readonly path: string; readonly mode: number }
  | { readonly kind: 'link'; readonly path: string; readonly target: string };

export interface SenderOptions {
  readonly link: Link;
  readonly stream: 'stdin' | 'code';
  readonly items: Iterable<Outgoing>;
  /** `items` is only the beginning: END waits for `finish`. */
  readonly open?: boolean;
  /** END is written. */
  readonly onDone?: () => void;
}

export class Sender {
  readonly #options: SenderOptions;
  #items: Iterator<Outgoing>;
  #open: boolean;
  readonly #outflow: Outflow;
  readonly #stream: number;
  /** Bytes of the current item that are still to be sent. */
  #rest: Buffer = Buffer.alloc(0);
  #done = false;

  constructor(options: SenderOptions) {
    this.#options = options;
    this.#items = options.items[Symbol.iterator]();
    this.#open = options.open === true;
    this.#outflow = new Outflow(options.stream);
    this.#stream = streams[options.stream];
  }

  /** END is written. */
  get done(): boolean {
    return this.#done;
  }

  /** Sends what may be sent now. Throws what making the items throws. */
  pump(): void {
    const { link, onDone } = this.#options;
    while (!this.#done && !link.congested && !link.stopped) {
      if (this.#rest.length > 0) {
        if (this.#outflow.window === 0) return;
        this.#sendBytes(link);
        continue;
      }
      const { value, done } = this.#items.next();
      if (done === true) {
        if (this.#open) return;
        this.#done = true;
        link.send(frameTypes.END, this.#stream, encodeEnd({ totalBytes: this.#outflow.sentBytes, truncated: false }));
        onDone?.();
      } else if (value.kind === 'bytes') this.#rest = value.bytes;
      else link.send(value.type, 0, value.payload);
    }
  }

  /** The rest of what an open sender sends: what it began with is small and has left the iterator by now. */
  finish(items: Iterable<Outgoing>): void {
    const begun = this.#items;
    this.#items = joined(begun, items);
    this.#open = false;
    this.pump();
  }

  /** CREDIT has come. Throws ProtocolError. */
  grant(bytes: number): void {
    this.#outflow.grant(bytes);
    this.pump();
  }

  #sendBytes(link: Link): void {
    const length = Math.min(this.#rest.length, this.#outflow.window, limits.framePayloadBytesMax);
    this.#outflow.sent(length);
    link.send(frameTypes.DATA, this.#stream, this.#rest.subarray(0, length));
    this.#rest = this.#rest.subarray(length);
  }
}

function* joined(first: Iterator<Outgoing>, then: Iterable<Outgoing>): Generator<Outgoing, void, undefined> {
  for (let next = first.next(); next.done !== true; next = first.next()) yield next.value;
  yield* then;
}

export function* stdinItems(stdin: Buffer): Generator<Outgoing, void, undefined> {
  yield { kind: 'bytes', bytes: stdin };
}

/** Each FILE is followed by the bytes of its file. */
export function* codeItems(code: readonly CodeEntry[]): Generator<Outgoing, void, undefined> {
  for (const entry of code) {
    yield { kind: 'message', type: messages.FILE.type, payload: encodeMessage('FILE', fileOf(entry)) };
    if (entry.kind === 'file') yield { kind: 'bytes', bytes: entry.content };
  }
}

function fileOf(entry: CodeEntry): Message<'FILE'> {
  const { path } = entry;
  const kind = fileKinds[entry.kind];
  switch (entry.kind) {
    case 'file':
      return { path, kind, mode: entry.mode, size: entry.content.length, target: '' };
    case 'folder':
      return { path, kind, mode: entry.mode, size: 0, target: '' };
    case 'link':
      return { path, kind, mode: 0o777, size: 0, target: entry.target };
  }
}
