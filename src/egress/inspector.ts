/**
 * Stands before a connection until its client's first bytes have said what it speaks, and to whom. Bytes of the
 * server pass meanwhile (mail and databases greet first); bytes of the client wait, at most a window of them.
 *
 *   sniffing ──TLS──▶ judged ──▶ answering ──▶ passing        what a server may take for a second ClientHello waits
 *       │ ╲                          ╲──▶ retrying ──▶ passing    for the answer to the first one
 *       │  ╲─neither──▶ passing, as long as its first line does not become HTTP
 *       ╰──HTTP──▶ handed over                              any of them, when denied ──▶ refused
 */
import { limits } from '../core/limits.ts';
import type { Clock } from '../core/time.ts';
import { readClientHello } from './client-hello.ts';
import type { ClientHello } from './client-hello.ts';
import type { GuestEnd, WorldEnd } from './contract.ts';
import type { Decision } from './policy.ts';
import { FirstLine, sniff } from './sniff.ts';
import type { Upstream } from './upstream.ts';

export interface InspectorOptions {
  readonly guest: GuestEnd;
  readonly upstream: Upstream;
  readonly clock: Clock;
  /** Undefined: a ClientHello of SSL 2, which names nobody. */
  readonly judgeTls: (hello: ClientHello | undefined) => Decision;
  readonly judgeTcp: () => Decision;
  /** Whoever answers the guest from now on; undefined when nobody can any more. */
  readonly handOver: (protocol: 'http1' | 'http2') => WorldEnd | undefined;
  readonly denied: (because: string) => void;
}

type Phase = 'sniffing' | 'answering' | 'retrying' | 'passing' | 'refused' | 'handed over';

/** PostgreSQL asks in eight bytes whether there is TLS, and begins when told so. */
const POSTGRES_ASKS = Buffer.from('0000000804d2162f', 'hex');
/** Random of a ServerHello that asks for another ClientHello (RFC 8446, 4.1.3). */
const RETRY = Buffer.from('cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c', 'hex');
const RETRY_BYTES = 11 + RETRY.length;
/** Fatal, access denied: a client of TLS says so instead of "connection reset". */
const ALERT = Buffer.from([21, 3, 3, 0, 2, 2, 49]);

export class Inspector implements WorldEnd {
  readonly #options: InspectorOptions;
  #phase: Phase = 'sniffing';
  #held: Buffer = Buffer.alloc(0);
  #ended = false;
  #asked = false;
  #answer: Buffer | undefined;
  #name: string | undefined;
  #taker: WorldEnd | undefined;
  #line: FirstLine | undefined;
  #cancel: (() => void) | undefined;

  constructor(options: InspectorOptions) {
    this.#options = options;
  }

  /** Bytes of the server, before the guest gets them. */
  watch(chunk: Buffer): void {
    if (this.#phase !== 'answering') return;
    const answer = Buffer.concat([this.#answer ?? Buffer.alloc(0), chunk.subarray(0, RETRY_BYTES)]);
    this.#answer = answer;
    const retry = answer.subarray(11, RETRY_BYTES).equals(RETRY);
    if (answer.length < RETRY_BYTES && answer[0] === 22) return;
    this.#phase = retry ? 'retrying' : 'passing';
    this.#goOn();
  }

  // ---- from the guest -----------------------------------------------------------------------------------------------

  data(chunk: Buffer): void {
    const { guest, upstream } = this.#options;
    if (this.#phase === 'refused') return guest.used(chunk.length);
    if (this.#phase === 'handed over') return void this.#taker?.data(chunk);
    if (this.#phase === 'passing') return this.#pass(chunk);
    if (upstream.over) return;
    this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    this.#goOn();
  }

  end(): void {
    this.#ended = true;
    if (this.#phase === 'refused') return;
    if (this.#phase === 'handed over') return void this.#taker?.end();
    if (this.#phase === 'passing') return this.#options.upstream.end();
    this.#goOn();
  }

  reset(): void {
    this.#cancel?.();
    if (this.#phase === 'handed over') this.#taker?.reset();
    else this.#options.upstream.reset();
  }

  writable(): void {
    if (this.#phase === 'handed over') this.#taker?.writable();
    else this.#options.upstream.writable();
  }

  // ---- what it is ---------------------------------------------------------------------------------------------------

  #goOn(): void {
    if (this.#phase === 'sniffing') this.#sniff();
    if (this.#phase === 'retrying') this.#retry();
    if (this.#phase === 'passing') this.#release();
  }

  #release(): void {
    const held = this.#held;
    this.#held = Buffer.alloc(0);
    if (held.length > 0) this.#pass(held);
    if (this.#ended && this.#phase === 'passing') this.#options.upstream.end();
  }

  #pass(chunk: Buffer): void {
    if (this.#line?.allows(chunk) === false) return this.#refuse('a request of HTTP that came in pieces');
    this.#options.upstream.data(chunk);
  }

  #sniff(): void {
    if (!this.#asked && this.#held.length >= 8 && this.#held.subarray(0, 8).equals(POSTGRES_ASKS)) {
      this.#asked = true;
      this.#options.upstream.data(this.#held.subarray(0, 8));
      this.#held = this.#held.subarray(8);
    }
    const found = sniff(this.#held);
    if (found === 'wait' && this.#ended) return this.#asTcp();
    if (found === 'wait') return this.#wait();
    this.#cancel?.();
    if (found === 'tcp') return this.#asTcp();
    if (found === 'tls') return this.#asTls();
    if (this.#asked) return this.#refuse('HTTP after a question of PostgreSQL');
    // Whatever the bridge calls while this is under way goes to the one who takes over.
    const taker = this.#options.handOver(found);
    if (taker === undefined) return this.#refuse('HTTP on a connection that has begun with something else');
    const held = this.#held;
    this.#held = Buffer.alloc(0);
    this.#phase = 'handed over';
    this.#taker = taker;
    taker.data(held);
    if (this.#ended) taker.end();
  }

  /** Something that began in capital letters and pauses may be no HTTP at all. */
  #wait(): void {
    if (this.#held.length === 0 || this.#held[0] === 0x16 || (this.#held[0] ?? 0) >= 0x80) return;
    this.#cancel ??= this.#options.clock.after(limits.sniffMillisMax, () => {
      if (this.#phase !== 'sniffing') return;
      this.#asTcp();
      this.#goOn();
    });
  }

  #asTcp(): void {
    const { allowed, because } = this.#options.judgeTcp();
    if (!allowed) return this.#refuse(because);
    this.#line = new FirstLine();
    this.#phase = 'passing';
  }

  #asTls(): void {
    if (this.#held[0] !== 0x16) {
      const old = this.#options.judgeTls(undefined);
      if (!old.allowed) return this.#refuse(old.because, ALERT);
      this.#phase = 'passing';
      return;
    }
    const reading = readClientHello(this.#held);
    if (reading.kind === 'incomplete') {
      return this.#ended ? this.#refuse('a ClientHello that is cut off', ALERT) : undefined;
    }
    if (reading.kind === 'malformed') return this.#refuse(reading.because, ALERT);
    const { allowed, because } = this.#options.judgeTls(reading.hello);
    if (!allowed) return this.#refuse(because, ALERT);
    this.#name = reading.hello.serverName;
    this.#phase = 'answering';
    const message = this.#held.subarray(0, reading.length);
    this.#held = this.#held.subarray(reading.length);
    this.#options.upstream.data(message);
  }

  /** The server wants a second ClientHello, and some take its name for the one that counts. */
  #retry(): void {
    let at = 0;
    // Bytes that the first one sent ahead, and a change of ciphers that means nothing.
    while (this.#held.length - at >= 5 && (this.#held[at] === 20 || this.#held[at] === 23)) {
      at += 5 + this.#held.readUInt16BE(at + 3);
    }
    if (at >= this.#held.length) return;
    const reading = readClientHello(this.#held.subarray(at));
    if (reading.kind === 'incomplete' && !this.#ended) return;
    if (reading.kind === 'hello' && reading.hello.serverName === this.#name) {
      const { allowed, because } = this.#options.judgeTls(reading.hello);
      if (!allowed) return this.#refuse(because);
      this.#phase = 'passing';
      return;
    }
    this.#refuse(reading.kind === 'malformed' ? reading.because : 'a second ClientHello for another name');
  }

  /** The guest hears `last` and an orderly end: a reset could overtake it. */
  #refuse(because: string, last?: Buffer): void {
    const { guest, upstream, denied } = this.#options;
    const held = this.#held.length;
    const clean = last !== undefined && !upstream.over;
    this.#cancel?.();
    this.#phase = 'refused';
    this.#held = Buffer.alloc(0);
    denied(because);
    upstream.cut();
    if (!clean) return guest.reset('denied');
    guest.used(held);
    guest.write(last);
    guest.end();
  }
}
