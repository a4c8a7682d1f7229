/**
 * What the bridge's tests, attacks and fuzzers share: a clock that moves when told, and a guest that says exactly what
 * it is told, true to the format or not, over an in-process transport with real back-pressure.
 */
import assert from 'node:assert/strict';
import { Duplex } from 'node:stream';
import { encodeFrame, FrameDecoder, frameTypes, streams } from '../../../src/bridge/frame.ts';
import type { Frame } from '../../../src/bridge/frame.ts';
import { decodeMessage, encodeMessage, messages } from '../../../src/bridge/message.ts';
import type { Message, MessageName } from '../../../src/bridge/message.ts';
import { Session } from '../../../src/bridge/session.ts';
import type {
  Adopted, CodeEntry, Configuration, ExecuteOptions, Execution, Identity, SessionBounds, Status,
} from '../../../src/bridge/session.ts';
import { encodeCredit, encodeEnd } from '../../../src/bridge/streams.ts';
import type { Clock } from '../../../src/core/time.ts';

// ---- clock -------------------------------------------------------------------------------------------------------

interface Timer {
  readonly at: number;
  readonly fire: () => void;
}

export class ManualClock implements Clock {
  #now = 0;
  readonly #timers = new Set<Timer>();

  now(): number {
    return this.#now;
  }

  wallNanos(): bigint {
    return 1_764_000_000_000_000_000n + BigInt(Math.round(this.#now * 1e6));
  }

  after(millis: number, fire: () => void): () => void {
    const timer = { at: this.#now + millis, fire };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  /** Timers that are neither fired nor cancelled. */
  get pending(): number {
    return this.#timers.size;
  }

  /** Moves time and fires what is due, in order. */
  advance(millis: number): void {
    const until = this.#now + millis;
    for (;;) {
      const due = [...this.#timers].filter(({ at }) => at <= until).sort((a, b) => a.at - b.at)[0];
      if (due === undefined) break;
      this.#now = due.at;
      this.#timers.delete(due);
      due.fire();
    }
    this.#now = until;
  }
}

/** Lets streams and promises do what they can do without time passing. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 4; turn++) await new Promise((resolve) => setImmediate(resolve));
}

// ---- transport ---------------------------------------------------------------------------------------------------

/** The host's end of a bridge. The guest's end is `feed` and `written`. */
export class Transport extends Duplex {
  /** What the host has written and the guest has read. */
  readonly written: Buffer[] = [];
  /** False: the guest does not read, and what the host writes piles up in its queue. */
  #reads = true;
  #unread: (() => void) | undefined;

  constructor(options: { readonly highWaterMark?: number } = {}) {
    super({ highWaterMark: options.highWaterMark ?? 64 * 1024 });
  }

  /** Bytes of the guest arrive at the host. False when the host does not read them. */
  feed(bytes: Buffer): boolean {
    return this.push(bytes);
  }

  /** The guest's end closes. */
  finish(): void {
    this.push(null);
  }

  set reads(reads: boolean) {
    this.#reads = reads;
    if (!reads) return;
    const unread = this.#unread;
    this.#unread = undefined;
    unread?.();
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    const take = (): void => {
      this.written.push(chunk);
      done();
    };
    if (this.#reads) take();
    else this.#unread = take;
  }
}

// ---- guest -------------------------------------------------------------------------------------------------------

export const cloneNonce = 0x0123_4567_89ab_cdefn;

/** Makes the guest's frames, numbers them, and reads the host's. */
export class ScriptedGuest {
  readonly transport: Transport;
  readonly #decoder = new FrameDecoder({ from: 'host', nonce: 0n });
  #taken = 0;
  #sequence = 0;
  nonce: bigint;

  constructor(transport: Transport, nonce: bigint = cloneNonce) {
    this.transport = transport;
    this.nonce = nonce;
  }

  /** The next frame's bytes, not sent. */
  make(type: number, stream: number, payload: Buffer): Buffer {
    return encodeFrame({ type, sequence: this.#sequence++, stream, nonce: this.nonce, payload });
  }

  send(type: number, stream: number, payload: Buffer): void {
    this.transport.feed(this.make(type, stream, payload));
  }

  say<N extends MessageName>(name: N, fields: Message<N>): void {
    this.send(messages[name].type, 0, encodeMessage(name, fields));
  }

  data(stream: keyof typeof streams, payload: Buffer | string): void {
    this.send(frameTypes.DATA, streams[stream], Buffer.from(payload));
  }

  end(stream: keyof typeof streams, totalBytes: number, truncated = false): void {
    this.send(frameTypes.END, streams[stream], encodeEnd({ totalBytes, truncated }));
  }

  credit(stream: keyof typeof streams, bytes: number): void {
    this.send(frameTypes.CREDIT, streams[stream], encodeCredit(bytes));
  }

  /** Frames that the host has written since the last call; the host itself is held to the format. */
  take(): Frame[] {
    const chunks = this.transport.written.slice(this.#taken);
    this.#taken = this.transport.written.length;
    return chunks.flatMap((chunk) => [...this.#decoder.push(chunk)]);
  }

  /** The same as short texts: `ADOPT`, `DATA 4 100`, `END 5`, `CREDIT 3 131072`. */
  heard(): string[] {
    return this.take().map(({ type, stream, payload }) => {
      if (stream === 0) return decodeMessage(type, payload).name;
      if (type === frameTypes.DATA) return `DATA ${stream} ${payload.length}`;
      return type === frameTypes.END ? `END ${stream}` : `CREDIT ${stream} ${payload.readUInt32LE(0)}`;
    });
  }
}

// ---- values ------------------------------------------------------------------------------------------------------

export const identity: Identity = {
  nonce: cloneNonce,
  entropy: Buffer.alloc(64, 7),
  clockUnixNanos: 1_764_000_000_000_000_000n,
  machineId: '0f1e2d3c4b5a69788796a5b4c3d2e1f0',
  bootId: '6f1c1c9e-2a55-4a40-8d0c-0d4f6f6d2b11',
  hostname: 'mayfly',
};

export const adopted: Adopted = {
  reseeded: 1,
  clockUnixNanos: 1_764_000_000_000_000_000n,
  machineId: identity.machineId,
  bootId: identity.bootId,
  hostname: identity.hostname,
};

export const configuration: Configuration = {
  limits: {
    memoryBytes: 268_435_456, cpuQuotaMicros: 100_000, cpuPeriodMicros: 100_000, pids: 128, openFiles: 1024,
    scratchBytes: 67_108_864, stdoutBytes: 1_048_576, stderrBytes: 1_048_576, outputBytes: 6_291_456,
  },
  argv: ['/usr/bin/node'],
  env: ['HOME=/tmp'],
  uid: 1000,
  gid: 1000,
  policy: Buffer.from('policy'),
  filter: Buffer.alloc(8),
};

export const exit: Message<'EXIT'> = {
  exitCode: 0, signal: 0, cpuMicros: 41_250, memoryPeakBytes: 52_428_800, oomKills: 0, pidsMaxHits: 0,
};

export const facts: readonly string[] = ['uid=1000', 'groups='];

// ---- a session and its guest, brought to a state -------------------------------------------------------------------

export interface Rig {
  readonly clock: ManualClock;
  readonly transport: Transport;
  readonly guest: ScriptedGuest;
  readonly session: Session;
}

export interface RigOptions {
  readonly bounds?: Partial<SessionBounds>;
  readonly highWaterMark?: number;
}

export function freshRig({ bounds, highWaterMark }: RigOptions = {}): Rig {
  const clock = new ManualClock();
  const transport = new Transport(highWaterMark === undefined ? {} : { highWaterMark });
  const session = new Session({ transport, clock, ...(bounds === undefined ? {} : { bounds }) });
  return { clock, transport, guest: new ScriptedGuest(transport), session };
}

export async function adoptedRig(options: RigOptions = {}): Promise<Rig> {
  const rig = freshRig(options);
  const done = rig.session.adopt(identity);
  rig.guest.say('ADOPTED', adopted);
  await done;
  return rig;
}

export interface ProvedOptions extends RigOptions {
  readonly code?: readonly CodeEntry[];
  readonly limits?: Partial<Configuration['limits']>;
}

export async function provedRig(options: ProvedOptions = {}): Promise<Rig> {
  const rig = await adoptedRig(options);
  const wanted = { ...configuration, limits: { ...configuration.limits, ...options.limits } };
  const done = rig.session.configure(wanted, options.code ?? []);
  rig.guest.say('PROOF', { fact: facts });
  await done;
  rig.guest.take();
  return rig;
}

export interface ExecutingRig extends Rig {
  readonly execution: Promise<Execution>;
}

export async function executingRig(options: ProvedOptions & Partial<ExecuteOptions> = {}): Promise<ExecutingRig> {
  const rig = await provedRig(options);
  const { stdin = Buffer.from('{}'), wallMillis = 30_000, onStdout, onStderr, broker } = options;
  const execution = rig.session.execute({
    stdin, wallMillis, ...(onStdout && { onStdout }), ...(onStderr && { onStderr }), ...(broker && { broker }),
  });
  await settle();
  return { ...rig, execution };
}

/** The guest ends every stream and exits; it has sent nothing but perhaps output. */
export function finishRun(guest: ScriptedGuest, totals: { readonly output?: number } = {}): void {
  guest.end('stdout', 0);
  guest.end('stderr', 0);
  guest.end('output', totals.output ?? 0);
  guest.say('EXIT', exit);
}

/** The session has failed with this code (and violation), holds no timer, reads nothing, and rejects what was asked. */
export async function assertFailed(
  { session, clock, transport }: Rig,
  expected: { readonly code: string; readonly violation?: string; readonly reason?: RegExp },
): Promise<Extract<Status, { state: 'failed' }>> {
  await settle();
  const { status } = session;
  assert.ok(status.state === 'failed', `the session is ${status.state}`);
  assert.equal(status.code, expected.code, status.reason);
  if (expected.violation !== undefined) assert.equal(status.violation, expected.violation, status.reason);
  if (expected.reason !== undefined) assert.match(status.reason, expected.reason);
  assert.equal(clock.pending, 0, 'timers are left');
  assert.ok(transport.isPaused() || transport.destroyed, 'the transport is still read');
  assert.equal((await session.failed).code, expected.code);
  return status;
}
