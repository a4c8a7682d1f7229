/** A flow while it lasts: what is found out about it on the way, and its one entry in the log at the end. */
import { millisRounded } from '../core/time.ts';
import type { Clock } from '../core/time.ts';
import type { Flow, FlowLog, TlsFacts } from './report.ts';

export class PendingFlow {
  name: string | undefined;
  address: string | undefined;
  because = '';
  connected = false;
  protocol: Flow['protocol'] = null;
  tls: TlsFacts | null = null;
  sentBytes = 0;
  receivedBytes = 0;
  readonly port: number;
  readonly #log: FlowLog;
  readonly #open: Set<PendingFlow>;
  readonly #clock: Clock;
  readonly #at: number;
  readonly #since: number;

  constructor(log: FlowLog, open: Set<PendingFlow>, clock: Clock, start: number, port: number) {
    this.#log = log;
    this.#open = open;
    this.#clock = clock;
    this.port = port;
    this.#since = clock.now();
    this.#at = this.#since - start;
    open.add(this);
  }

  /** It ended by itself, or with the run. */
  over(): void {
    if (this.connected) this.finish('allowed', this.because);
    else this.finish('failed', 'the guest gave up');
  }

  /** The first time counts. */
  finish(verdict: Flow['verdict'], because: string): void {
    if (!this.#open.delete(this)) return;
    this.#log.flow({
      at: millisRounded(this.#at), millis: millisRounded(this.#clock.now() - this.#since),
      name: this.name ?? null, address: this.address ?? null, port: this.port, protocol: this.protocol,
      verdict, because, sentBytes: this.sentBytes, receivedBytes: this.receivedBytes, tls: this.tls,
    });
  }
}
