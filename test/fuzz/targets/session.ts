/**
 * A whole session against a guest that follows a program of bytes: honest steps, damaged frames, silence, a socket that
 * is not read, ends at any moment. Whatever the program, the session ends in a status with a code, leaves no timer and
 * no promise pending, queues little, and itself never breaks the format or a window.
 */
import assert from 'node:assert/strict';
import type { Door } from '../../../src/bridge/door.ts';
import { frameTypes, hostStreams } from '../../../src/bridge/frame.ts';
import { encodeMessage, messages } from '../../../src/bridge/message.ts';
import type { Session } from '../../../src/bridge/session.ts';
import { encodeCredit, encodeEnd } from '../../../src/bridge/streams.ts';
import { MayflyError } from '../../../src/core/errors.ts';
import { limits } from '../../../src/core/limits.ts';
import { adopted, configuration, exit, facts, freshRig, identity } from '../../unit/bridge/rig.ts';
import type { Rig } from '../../unit/bridge/rig.ts';
import type { FuzzRandom } from '../random.ts';
import { mutate } from '../random.ts';
import type { FuzzTarget } from '../target.ts';

/** Steps of one program: more would only repeat. */
const STEPS_MAX = 80;

/** Reads the program; it goes on with zeros so that every prefix is a program too. */
class Program {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get ended(): boolean {
    return this.#at >= this.#bytes.length;
  }

  next(): number {
    return this.#bytes[this.#at++] ?? 0;
  }
}

/** The rig and what the fuzzer knows about it beside what the session says. */
interface World {
  readonly rig: Rig;
  readonly calls: Promise<unknown>[];
  /** Bytes that the guest has sent on streams 1 to 3 in good frames. */
  readonly sent: number[];
  /** What the host may have sent on streams 4 and 5: the window and the credits. */
  readonly granted: number[];
  readonly heard: number[];
  readonly doors: Door[];
}

type Step = (world: World, program: Program) => void;

const steps: readonly Step[] = [
  ({ rig, calls }) => calls.push(rig.session.adopt(identity)),
  ({ rig, calls }, program) => {
    const content = Buffer.alloc(program.next() * 2000);
    calls.push(rig.session.configure(configuration, [{ kind: 'file', path: 'f', mode: 0o644, content }]));
  },
  ({ rig, calls }, program) => {
    const stdin = Buffer.alloc(program.next() * 2000);
    calls.push(rig.session.execute({ stdin, wallMillis: 1000, onStdout: () => {} }));
  },
  ({ rig }) => rig.guest.say('ADOPTED', adopted),
  ({ rig }) => rig.guest.say('PROOF', { fact: facts }),
  ({ rig, sent }, program) => {
    const stream = 1 + (program.next() % 3);
    const payload = Buffer.alloc(Math.min(limits.framePayloadBytesMax, 1 + program.next() * 257), 0x61);
    sent[stream] = (sent[stream] ?? 0) + payload.length;
    rig.guest.send(frameTypes.DATA, stream, payload);
  },
  ({ rig, sent }, program) => {
    const stream = 1 + (program.next() % 3);
    const lie = program.next() === 7 ? 1 : 0;
    rig.guest.send(frameTypes.END, stream, encodeEnd({ totalBytes: (sent[stream] ?? 0) + lie, truncated: false }));
  },
  ({ rig }) => rig.guest.say('EXIT', exit),
  ({ rig }, program) => {
    const code = ['E_CLONE_FAILED', 'E_FUNCTION_LOAD', 'E_CLONE_NOT_UNIQUE', '\u001b[2J'][program.next() % 4] ?? '';
    rig.guest.say('FAULT', { code, message: 'fault' });
  },
  ({ rig, granted }, program) => {
    const stream = 4 + (program.next() % 2);
    const bytes = program.next() * 1000;
    granted[stream] = (granted[stream] ?? 0) + bytes;
    rig.guest.send(frameTypes.CREDIT, stream, encodeCredit(bytes));
  },
  // A frame with one byte of its header changed.
  ({ rig }, program) => {
    const frame = rig.guest.make(frameTypes.DATA, 1, Buffer.from('x'));
    frame[program.next() % limits.frameHeaderBytes] = program.next();
    rig.transport.feed(frame);
  },
  // A message with one byte of its payload changed.
  ({ rig }, program) => {
    const payload = encodeMessage('EXIT', exit);
    payload[program.next() % payload.length] = program.next();
    rig.guest.send(messages.EXIT.type, 0, payload);
  },
  // Part of a frame; the rest never comes, so what follows is read as that.
  ({ rig }, program) => {
    rig.transport.feed(rig.guest.make(frameTypes.DATA, 1, Buffer.alloc(100)).subarray(0, program.next() % 124));
  },
  ({ rig }, program) => rig.transport.feed(Buffer.alloc(program.next(), program.next())),
  ({ rig }, program) => rig.clock.advance(program.next() * 50),
  // The host calls a server, which may accept, answer, end or reset, in any order.
  ({ rig, doors }) => { if (rig.session.status.state === 'executing') doors.push(rig.session.dial(8080)); },
  ({ rig, doors }, program) => {
    const types = [frameTypes.ACCEPT, frameTypes.DATA, frameTypes.END, frameTypes.RESET, frameTypes.CREDIT];
    const payloads = [
      Buffer.alloc(0), Buffer.from('HTTP/1.1 200 OK'), encodeEnd({ totalBytes: 0, truncated: false }), Buffer.alloc(1),
      encodeCredit(program.next() * 1000),
    ];
    const which = program.next() % types.length;
    const stream = hostStreams.min + (program.next() % 3);
    rig.guest.send(types[which] ?? 0, stream, payloads[which] ?? Buffer.alloc(0));
    doors.at(-1)?.resume();
  },
  ({ rig }) => rig.session.stop(),
  ({ rig }) => { rig.transport.reads = false; },
  ({ rig }) => { rig.transport.reads = true; },
  ({ rig }) => rig.transport.finish(),
  ({ rig }) => rig.transport.destroy(Object.assign(new Error('reset'), { code: 'ECONNRESET' })),
  ({ rig }) => rig.session.close(),
];

const [ADOPT, CONFIGURE, EXECUTE, ADOPTED, PROOF, DATA, END, EXIT] = Array.from(steps.keys());

/** An honest run; each number is a step or its argument. */
function honestProgram(random: FuzzRandom): Buffer {
  const data = Array.from({ length: random.below(6) }, () => [DATA, random.below(256), random.below(256)]).flat();
  const ends = [0, 1, 2].flatMap((stream) => [END, stream, 0]);
  const program = [
    ADOPT, CONFIGURE, random.below(120), ADOPTED, PROOF, EXECUTE, random.below(120), ...data, ...ends, EXIT,
  ];
  return Buffer.from(program.map((step) => step ?? 0));
}

export const session: FuzzTarget = {
  smokeIterations: 500,
  make(random) {
    const program = honestProgram(random);
    const kind = random.below(10);
    if (kind === 0) return program;
    return kind === 1 ? random.bytes(random.below(60)) : mutate(random, program, 3).subarray(0, 300);
  },
  async check(input) {
    const unhandled: unknown[] = [];
    const note = (reason: unknown): void => { unhandled.push(reason); };
    process.on('unhandledRejection', note);
    try {
      await runProgram(new Program(input));
    } finally {
      process.off('unhandledRejection', note);
    }
    assert.deepEqual(unhandled, []);
  },
};

async function runProgram(program: Program): Promise<void> {
  const rig = freshRig();
  const window = limits.streamWindowBytes;
  const world: World = { rig, calls: [], sent: [], granted: [0, 0, 0, 0, window, window], heard: [], doors: [] };
  for (let count = 0; count < STEPS_MAX && !program.ended; count++) {
    const opcode = program.next();
    // The guest's end cannot do anything with a transport that is gone; the host's calls still can.
    const step = steps[opcode % steps.length];
    if (!rig.transport.destroyed && !rig.transport.readableEnded) step?.(world, program);
    if ((opcode & 0x80) === 0) await new Promise((resolve) => setImmediate(resolve));
    inspect(world);
  }
  // Time passes: whatever was under way is over.
  rig.transport.reads = true;
  for (const millis of [1000, 60_000]) {
    await new Promise((resolve) => setImmediate(resolve));
    rig.clock.advance(millis);
  }
  await new Promise((resolve) => setImmediate(resolve));
  inspect(world);
  const { state } = rig.session.status;
  assert.ok(!['adopting', 'configuring', 'executing'].includes(state), `still ${state} after a minute`);
  rig.session.close();
  assert.equal(rig.clock.pending, 0, 'timers are left');
  for (const outcome of await settled(world.calls)) {
    if (outcome.status === 'rejected') assert.ok(outcome.reason instanceof MayflyError, String(outcome.reason));
  }
}

function inspect({ rig, granted, heard }: World): void {
  assert.ok(rig.transport.writableLength <= 256 * 1024, `${rig.transport.writableLength} bytes are queued`);
  checkStatus(rig.session);
  // Throws when the host breaks the format.
  for (const { type, stream, payload } of rig.guest.take()) {
    if (type === frameTypes.DATA) heard[stream] = (heard[stream] ?? 0) + payload.length;
  }
  for (const stream of [4, 5]) assert.ok((heard[stream] ?? 0) <= (granted[stream] ?? 0), `window of ${stream} overrun`);
}

const failureCodes: ReadonlySet<string> = new Set([
  'E_GUEST_PROTOCOL', 'E_GUEST_SILENT', 'E_GUEST_DIED', 'E_CLONE_FAILED', 'E_CLONE_NOT_UNIQUE', 'E_FUNCTION_LOAD',
  'E_FUNCTION_TIMEOUT', 'E_INTERRUPTED',
]);

function checkStatus({ status, received }: Session): void {
  if (status.state === 'failed') {
    assert.ok(failureCodes.has(status.code), status.code);
    assert.equal(status.violation !== undefined, status.code === 'E_GUEST_PROTOCOL');
    assert.ok(status.reason.length > 0 && status.reason.length < 600);
  }
  assert.ok(received.stdout.bytes <= configuration.limits.stdoutBytes);
  assert.ok(received.stderr.bytes <= configuration.limits.stderrBytes);
}

/** Every call is over once the session is: one that is not would hang its caller. */
async function settled(calls: readonly Promise<unknown>[]): Promise<PromiseSettledResult<unknown>[]> {
  const late = new Promise<never>((_resolve, reject) => {
    setImmediate(() => setImmediate(() => reject(new Error('a call is still pending after close'))));
  });
  late.catch(() => {});
  return await Promise.race([Promise.allSettled(calls), late]);
}

