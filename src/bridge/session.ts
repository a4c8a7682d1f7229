/**
 * The host's side of one clone's bridge, from the first frame under its nonce to EXIT. Used once, like the clone.
 *
 *   fresh ──adopt()──▶ adopting ──ADOPTED──▶ adopted ──configure()──▶ configuring ──PROOF──▶ proved
 *                                                                                              │ start()
 *   any state but finished ──▶ failed     finished ◀──EXIT── executing ◀──execute()── started ◀──┘
 *
 * start() lets the function be loaded before there is an event; execute() does it itself when nobody has. A function
 * that ends before its event was not able to be loaded: execute() then answers with that end.
 *
 * configure() may be called while adopting: its bytes follow at once and its time includes the adoption's.
 *
 * Whatever the guest does ends in `finished` or `failed`, never in an exception outside these promises: `failed` is a
 * value with a code, every pending call rejects with it as a MayflyError, and a rejection that nobody awaits is not
 * reported as unhandled. From then on nothing is read, and `close` destroys the transport.
 */
import type { Duplex } from 'node:stream';
import { MayflyError } from '../core/errors.ts';
import type { ErrorCode } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import type { Clock } from '../core/time.ts';
import type { Broker } from '../egress/contract.ts';
import { configureOf, deferred, faultOf, rejected } from './calls.ts';
import type { Call, Configuration, ConfiguredLimits } from './calls.ts';
import { Connections } from './connections.ts';
import type { Door } from './door.ts';
import { RunningExecution } from './execution.ts';
import type { Execution, StreamCount } from './execution.ts';
import { egressStreams, frameTypes, ProtocolError, streams } from './frame.ts';
import type { Frame } from './frame.ts';
import { failureOf, Link } from './link.ts';
import type { BridgeFailure, Bounds, LinkBounds } from './link.ts';
import { decodeMessage, encodeMessage, messages } from './message.ts';
import type { AnyMessage, Message } from './message.ts';
import { codeItems, Sender, stdinItems } from './sender.ts';
import type { CodeEntry } from './sender.ts';
import { decodeCredit, decodeEnd, encodeCredit } from './streams.ts';

export type { Configuration } from './calls.ts';
export type { Execution, StreamCount } from './execution.ts';
export type { BridgeFailure } from './link.ts';
export type { CodeEntry } from './sender.ts';
export { prepareTemplate } from './template.ts';

export type Adopted = Message<'ADOPTED'>;

export interface Identity extends Omit<Message<'ADOPT'>, 'clockUnixNanos'> {
  /** 64 random bits, not 0. */
  readonly nonce: bigint;
  /** A function is called when ADOPT is written. */
  readonly clockUnixNanos: bigint | (() => bigint);
}

export interface ExecuteOptions {
  /** The event. */
  readonly stdin: Buffer;
  /** Hostile bytes as they come, at most the configured limit in all. What they throw ends the session. */
  readonly onStdout?: (chunk: Buffer) => void;
  readonly onStderr?: (chunk: Buffer) => void;
  /** From START to EXIT, ms. */
  readonly wallMillis: number;
  /** What the function's connections meet; without one, each is refused. */
  readonly broker?: Broker;
}

export type Status =
  | { readonly state: 'fresh' | 'adopting' | 'configuring' | 'started' | 'executing' }
  | { readonly state: 'adopted'; readonly adopted: Adopted }
  | { readonly state: 'proved'; readonly facts: readonly string[] }
  | { readonly state: 'finished'; readonly execution: Execution }
  | ({ readonly state: 'failed' } & BridgeFailure);

export type SessionBounds = LinkBounds & Bounds<'adoptMillisMax' | 'configureMillisMax'>;

export interface SessionOptions {
  readonly transport: Duplex;
  readonly clock: Clock;
  /** For tests; production has core/limits.ts. */
  readonly bounds?: Partial<SessionBounds>;
}

const mayFault: ReadonlySet<Status['state']> = new Set(['adopting', 'configuring', 'started', 'executing']);

export class Session {
  /** Resolves, never rejects, when the session fails or is closed before it has finished. */
  readonly failed: Promise<BridgeFailure>;
  readonly #clock: Clock;
  readonly #transport: Duplex;
  readonly #bounds: SessionBounds;
  readonly #link: Link;
  readonly #failure = deferred<BridgeFailure>();
  #status: Status = { state: 'fresh' };
  #adopting: Call<Adopted> | undefined;
  #configuring: Call<readonly string[]> | undefined;
  #executing: Call<Execution> | undefined;
  #limits: ConfiguredLimits | undefined;
  #code: Sender | undefined;
  #stdin: Sender | undefined;
  #execution: RunningExecution | undefined;
  #connections: Connections | undefined;

  constructor({ transport, clock, bounds = {} }: SessionOptions) {
    this.failed = this.#failure.promise;
    this.#clock = clock;
    this.#transport = transport;
    this.#bounds = { ...limits, ...bounds };
    this.#link = new Link({
      transport,
      clock,
      side: 'host',
      bounds: this.#bounds,
      onFrame: (frame) => this.#receive(frame),
      onWritable: () => this.#guarded(() => this.#onWritable()),
      onFailure: (failure) => this.#fail(failure),
    });
    this.#link.start();
  }

  get status(): Status {
    return this.#status;
  }

  /** What has come of the function's logs, also of one that did not end. */
  get received(): { readonly stdout: StreamCount; readonly stderr: StreamCount } {
    const nothing = { bytes: 0, truncated: false };
    return this.#execution?.received ?? { stdout: nothing, stderr: nothing };
  }

  /** Sends ADOPT under the clone's nonce. Resolves to what the guest says it is now: compare it. */
  adopt({ nonce, clockUnixNanos, ...identity }: Identity): Promise<Adopted> {
    if (this.#status.state !== 'fresh') return this.#refuse('adopt');
    if (nonce === 0n) return rejected('E_INTERNAL', 'a clone cannot have the nonce of templates');
    const call = this.#begin<Adopted>(this.#bounds.adoptMillisMax, 'E_GUEST_SILENT', 'ADOPTED');
    this.#adopting = call;
    this.#status = { state: 'adopting' };
    this.#guarded(() => {
      const nanos = typeof clockUnixNanos === 'bigint' ? clockUnixNanos : clockUnixNanos();
      this.#link.restart(nonce);
      this.#link.send(messages.ADOPT.type, 0, encodeMessage('ADOPT', { ...identity, clockUnixNanos: nanos }));
    });
    return call.promise;
  }

  /** Sends limits and code. Resolves to the facts of the guest's proof: compare them. */
  configure(configuration: Configuration, code: readonly CodeEntry[]): Promise<readonly string[]> {
    const { state } = this.#status;
    const early = state !== 'adopting' && state !== 'adopted';
    if (early || this.#configuring !== undefined) return this.#refuse('configure');
    let payload: Buffer;
    try {
      payload = encodeMessage('CONFIGURE', configureOf(configuration));
    } catch (thrown) {
      // Nothing is sent yet: too many or too long arguments are the caller's, and the session stays usable.
      return rejected('E_LIMIT_INVALID', thrown instanceof Error ? thrown.message : String(thrown));
    }
    const call = this.#begin<readonly string[]>(this.#bounds.configureMillisMax, 'E_GUEST_SILENT', 'PROOF');
    this.#configuring = call;
    this.#limits = configuration.limits;
    if (state === 'adopted') this.#status = { state: 'configuring' };
    this.#guarded(() => {
      this.#link.send(messages.CONFIGURE.type, 0, payload);
      this.#code = new Sender({ link: this.#link, stream: 'code', items: codeItems(code) });
      this.#code.pump();
    });
    return call.promise;
  }

  /**
   * Starts the function with the beginning of its stdin, small enough for one window. Throws unless proved. Resolves
   * when the function says the first byte of its output or has ended: a rehearsing runtime sends a blank when it is
   * ready.
   */
  start(head: Buffer): Promise<void> {
    const granted = this.#limits;
    if (this.#status.state !== 'proved' || granted === undefined || head.length > limits.streamWindowBytes) {
      throw new MayflyError('E_INTERNAL', `start() of ${head.length} bytes while the session is ${this.#status.state}`);
    }
    const execution = new RunningExecution({ clock: this.#clock, limits: granted });
    this.#execution = execution;
    this.#status = { state: 'started' };
    this.#connections = new Connections(this.#link);
    this.#guarded(() => {
      this.#link.send(messages.START.type, 0, encodeMessage('START', {}));
      const onDone = (): void => execution.stdinSent();
      this.#stdin = new Sender({ link: this.#link, stream: 'stdin', items: stdinItems(head), open: true, onDone });
      this.#stdin.pump();
    });
    return Promise.race([execution.spoken, this.failed.then(() => {})]);
  }

  /**
   * Delivers the event, or what of it `start` has not sent, and collects what comes of it. Rejects with
   * E_FUNCTION_TIMEOUT after `wallMillis`: the logs until then have gone to the callbacks, and `received` counts them.
   */
  execute({ stdin, onStdout, onStderr, wallMillis, broker }: ExecuteOptions): Promise<Execution> {
    if (this.#status.state === 'proved') void this.start(Buffer.alloc(0));
    const status = this.#status;
    const execution = this.#execution;
    const early = status.state === 'finished' && this.#executing === undefined;
    if (execution === undefined || (status.state !== 'started' && !early)) return this.#refuse('execute');
    const call = this.#begin<Execution>(wallMillis, 'E_FUNCTION_TIMEOUT', 'EXIT');
    this.#executing = call;
    this.#guarded(() => {
      execution.listen({ onStdout, onStderr });
      if (early) return call.resolve(status.execution);
      this.#status = { state: 'executing' };
      this.#connections?.attach(broker);
      this.#stdin?.finish(stdinItems(stdin));
      this.#grantAll(execution);
    });
    return call.promise;
  }

  /** A connection to a server of the function, open when somebody listens there. Throws unless executing. */
  dial(port: number): Door {
    if (this.#status.state !== 'executing' || this.#connections === undefined) {
      throw new MayflyError('E_INTERNAL', `dial() while the session is ${this.#status.state}`);
    }
    return this.#connections.dial({ address: '127.0.0.1', port });
  }

  /** Ends the function, which by itself would go on: a server that has answered. `execute` resolves soon. */
  stop(): void {
    if (this.#status.state !== 'executing') return;
    this.#guarded(() => this.#link.send(messages.STOP.type, 0, encodeMessage('STOP', {})));
  }

  /** Ends whatever is under way (E_INTERRUPTED) and destroys the transport. Idempotent. */
  close(): void {
    this.#fail({ code: 'E_INTERRUPTED', reason: 'the host closed the session' });
    this.#link.stop();
    this.#transport.destroy();
  }

  // ---- frames of the guest ------------------------------------------------------------------------------------------

  #receive(frame: Frame): void {
    const { type, stream, payload } = frame;
    if (stream >= egressStreams.min) this.#running(`a frame on stream ${stream}`);
    if (stream >= egressStreams.min) return this.#connections?.frame(frame);
    switch (type) {
      case frameTypes.DATA:
        return this.#receiveData(stream, payload);
      case frameTypes.END:
        return this.#running(`END on stream ${stream}`).end(stream, decodeEnd(payload));
      case frameTypes.CREDIT:
        return this.#receiveCredit(stream, decodeCredit(payload));
      default:
        return this.#receiveMessage(decodeMessage(type, payload));
    }
  }

  #receiveData(stream: number, payload: Buffer): void {
    const execution = this.#running(`DATA on stream ${stream}`);
    execution.data(stream, payload);
    this.#grant(execution, stream);
  }

  /** A guest that does not read gets no credit: it may fill its windows, and then it breaks the rules or waits. */
  #grant(execution: RunningExecution, stream: number): void {
    if (this.#link.congested || this.#status.state !== 'executing') return;
    const credit = execution.takeCredit(stream);
    if (credit > 0) this.#link.send(frameTypes.CREDIT, stream, encodeCredit(credit));
  }

  #grantAll(execution: RunningExecution): void {
    for (const stream of [streams.stdout, streams.stderr, streams.output]) this.#grant(execution, stream);
  }

  #onWritable(): void {
    this.#sender()?.pump();
    this.#connections?.writable();
    if (this.#execution !== undefined) this.#grantAll(this.#execution);
  }

  #receiveCredit(stream: number, bytes: number): void {
    const sender = this.#sender();
    if (sender === undefined || stream !== (sender === this.#code ? streams.code : streams.stdin)) {
      throw this.#outOfOrder(`CREDIT on stream ${stream}`);
    }
    sender.grant(bytes);
  }

  #receiveMessage({ name, fields }: AnyMessage): void {
    const { state } = this.#status;
    if (name === 'ADOPTED' && state === 'adopting') {
      this.#status = this.#configuring === undefined ? { state: 'adopted', adopted: fields } : { state: 'configuring' };
      this.#adopting?.resolve(fields);
    } else if (name === 'PROOF' && state === 'configuring' && this.#code?.done === true) {
      this.#status = { state: 'proved', facts: fields.fact };
      this.#code = undefined;
      this.#configuring?.resolve(fields.fact);
    } else if (name === 'EXIT') {
      const execution = this.#running('EXIT').finish(fields);
      this.#link.stop();
      this.#connections?.close();
      this.#status = { state: 'finished', execution };
      this.#executing?.resolve(execution);
    } else if (name === 'FAULT' && mayFault.has(state)) {
      this.#fail(faultOf(fields, state === 'started' || state === 'executing'));
    } else throw this.#outOfOrder(name);
  }

  #running(what: string): RunningExecution {
    const { state } = this.#status;
    const running = state === 'started' || state === 'executing';
    if (!running || this.#execution === undefined) throw this.#outOfOrder(what);
    return this.#execution;
  }

  #outOfOrder(what: string): ProtocolError {
    return new ProtocolError('order', `${what} while the session is ${this.#status.state}`);
  }

  #sender(): Sender | undefined {
    return this.#stdin ?? this.#code;
  }

  // ---- calls and their ends -----------------------------------------------------------------------------------------

  #begin<T>(millis: number, code: ErrorCode, awaited: string): Call<T> {
    const reason = code === 'E_FUNCTION_TIMEOUT'
      ? `the function did not finish within ${millis} ms`
      : `the guest did not send ${awaited} within ${millis} ms`;
    const { promise, resolve, reject } = deferred<T>();
    const cancel = this.#clock.after(millis, () => this.#fail({ code, reason }));
    return {
      promise,
      resolve: (value) => { cancel(); resolve(value); },
      reject: (error) => { cancel(); reject(error); },
    };
  }

  /** Runs what writes: what it throws is a bug of the host and still ends as a status. */
  #guarded(work: () => void): void {
    try {
      work();
    } catch (thrown) {
      this.#fail(failureOf(thrown));
    }
  }

  #fail(failure: BridgeFailure): void {
    const { state } = this.#status;
    if (state === 'failed' || state === 'finished') return;
    this.#status = { state: 'failed', ...failure };
    this.#link.stop();
    const error = new MayflyError(failure.code, failure.reason);
    for (const call of [this.#adopting, this.#configuring, this.#executing]) call?.reject(error);
    this.#code = undefined;
    this.#stdin = undefined;
    this.#connections?.close();
    this.#failure.resolve(failure);
  }

  #refuse<T>(call: string): Promise<T> {
    const status = this.#status;
    if (status.state === 'failed') return rejected(status.code, status.reason);
    return rejected('E_INTERNAL', `${call}() while the session is ${status.state}`);
  }
}
