/**
 * Machines without virtualization: each is an object that plays the agent and the workload over a real bridge, well or,
 * on request, badly. Simulation runs the whole product against it in simulated time; test/vm/parity runs one suite
 * against this and QEMU, so that what simulation proves is about the real thing.
 *
 *   spawned ─resume()─▶ running ─ADOPT─▶ ADOPTED ─CONFIGURE, code─▶ PROOF ─START, stdin─▶ streams, EXIT
 *      └───────────────────┴────────────────┴──────────────────────────┴──────────────────────┴─────▶ dead
 */
import { duplexPair } from 'node:stream';
import type { Duplex } from 'node:stream';
import { encodeFrame, FrameDecoder, frameTypes, streams } from '../../bridge/frame.ts';
import type { Frame } from '../../bridge/frame.ts';
import { decodeMessage, encodeMessage, messages } from '../../bridge/message.ts';
import type { Message, MessageName } from '../../bridge/message.ts';
import { decodeCredit, encodeCredit, encodeEnd, Outflow } from '../../bridge/streams.ts';
import { MayflyError } from '../../core/errors.ts';
import { digestOf } from '../../core/json.ts';
import { limits } from '../../core/limits.ts';
import type { Clock } from '../../core/time.ts';
import { expectedFacts } from '../../profile/facts.ts';
import type {
  DiskRates, Machine, MachineExit, MachineMemory, Prepare, ProcessIdentity, TemplateSpec, TemplateState, Vmm,
} from './contract.ts';

/** What goes wrong, and when. A machine has at most one fault. */
export type FakeFault =
  | { readonly at: 'spawn'; readonly does: 'fail' }
  | { readonly at: 'resume'; readonly does: 'fail' | Disaster }
  | { readonly at: 'adopt'; readonly does: 'not-reseeded' | 'same-identity' | 'wrong-clock' | 'fault' | Disaster }
  | { readonly at: 'configure'; readonly does: ConfigureFault | Disaster }
  | { readonly at: 'run'; readonly does: 'throw' | 'not-json' | 'oom' | 'exit' | 'flood' | 'overrun' | Disaster }
  | { readonly at: 'kill'; readonly does: 'survive' | 'survive-once' };

type ConfigureFault = 'weaker-limit' | 'extra-mount' | 'missing-fact' | 'no-throttle' | 'fault';

/** `die`: the process ends. `halt`: the guest stops and its process waits. `garbage`: bytes that are no frame. */
type Disaster = 'die' | 'silence' | 'halt' | 'garbage' | 'half-frame';

export interface FakeOptions {
  readonly clock: Clock;
  /** How long the next step of a machine takes, ms. */
  readonly delay: () => number;
  /** Asked once for each machine, numbered from 1. */
  readonly fault?: (machine: number) => FakeFault | undefined;
  /** What the function answers to the event; an echo of it unless given. */
  readonly answer?: (stdin: Buffer) => Buffer;
}

export interface FakeVmm extends Vmm {
  /** Every machine that there ever was. */
  readonly machines: readonly FakeMachine[];
}

export function createFake(options: FakeOptions): FakeVmm {
  const machines: FakeMachine[] = [];
  return {
    isolation: 'fake',
    version: 'fake 1',
    machines,
    async buildTemplate(spec: TemplateSpec, prepare: Prepare): Promise<TemplateState> {
      const machine = new FakeMachine(options, 0, undefined);
      await machine.resume();
      try {
        machine.say('HELLO', {
          protocol: 1, agentVersion: 'fake', kernelRelease: 'fake', memoryBytes: spec.ramBytes, policyFeatures: 'fake',
        });
        await prepare(machine.bridge);
        return { ...spec, ram: `${spec.folder}/ram`, state: Buffer.from('fake') };
      } finally {
        await machine.kill();
      }
    },
    async spawn(): Promise<Machine> {
      await sleep(options);
      const number = machines.length + 1;
      const fault = options.fault?.(number);
      if (fault?.at === 'spawn') {
        // It counts as a machine that was asked for, and is none.
        machines.push(new FakeMachine(options, number, fault, 'dead'));
        throw new MayflyError('E_CLONE_FAILED', 'the fake was told to fail at spawn');
      }
      const machine = new FakeMachine(options, number, fault);
      machines.push(machine);
      return machine;
    },
  };
}

function sleep({ clock, delay }: FakeOptions): Promise<void> {
  return new Promise((resolve) => clock.after(delay(), resolve));
}

const PID_BASE = 100_000;

class FakeMachine implements Machine {
  readonly identity: ProcessIdentity;
  readonly bridge: Duplex;
  readonly exited: Promise<MachineExit>;
  readonly halted: Promise<string>;
  /** Events that were delivered to it. */
  deliveries = 0;
  readonly #options: FakeOptions;
  readonly #fault: FakeFault | undefined;
  readonly #port: Duplex;
  readonly #exit = Promise.withResolvers<MachineExit>();
  readonly #halt = Promise.withResolvers<string>();
  #alive: boolean;
  #resumed = false;
  /** Nothing is said any more. */
  #mute = false;
  #kills = 0;
  #decoder = new FrameDecoder({ from: 'host', nonce: 0n });
  #nonce = 0n;
  #disk: DiskRates = { readBytesPerSecond: 0, readOperationsPerSecond: 0 };
  #sequence = 0;
  #stdin: Buffer[] = [];
  #configuration: Message<'CONFIGURE'> | undefined;
  readonly #outflows = new Map<number, Outflow>();
  readonly #unsent: { readonly stream: number; bytes: Buffer; readonly truncated: boolean }[] = [];
  #exitMessage: Message<'EXIT'> | undefined;

  constructor(options: FakeOptions, number: number, fault: FakeFault | undefined, state: 'paused' | 'dead' = 'paused') {
    this.#options = options;
    this.#fault = fault;
    this.#alive = state !== 'dead';
    this.identity = { pid: PID_BASE + number, startTicks: BigInt(1_000 + number) };
    [this.bridge, this.#port] = duplexPair();
    this.exited = this.#exit.promise;
    this.halted = this.#halt.promise;
    for (const end of [this.bridge, this.#port]) end.on('error', () => {});
    this.#port.on('data', (chunk: Buffer) => this.#receive(chunk));
  }

  get alive(): boolean {
    return this.#alive;
  }

  async limitDisk(rates: DiskRates): Promise<void> {
    if (this.#faultAt('configure') !== 'no-throttle') this.#disk = rates;
  }

  async diskRates(): Promise<DiskRates> {
    return this.#disk;
  }

  async resume(): Promise<void> {
    await sleep(this.#options);
    if (!this.#alive) throw new MayflyError('E_CLONE_FAILED', 'the machine is gone');
    if (this.#resumed) throw new Error('a machine is resumed once only');
    this.#resumed = true;
    const does = this.#faultAt('resume');
    if (does === 'fail') throw new MayflyError('E_CLONE_FAILED', 'the fake was told to fail at resume');
    this.#disaster(does);
  }

  async kill(): Promise<void> {
    await sleep(this.#options);
    this.#kills += 1;
    const does = this.#faultAt('kill');
    if (does === 'survive' || (does === 'survive-once' && this.#kills === 1)) {
      throw new MayflyError('E_RELEASE_INCOMPLETE', `VMM process ${this.identity.pid} outlived SIGKILL`);
    }
    this.die();
  }

  /** At once and without a word, as after SIGKILL from anyone. */
  die(): void {
    if (!this.#alive) return;
    this.#alive = false;
    this.#port.destroy();
    this.bridge.destroy();
    this.#halt.resolve('the fake machine ended');
    this.#exit.resolve({ exitCode: null, signal: 'SIGKILL' });
  }

  async freeze(): Promise<void> {
    await sleep(this.#options);
    if (!this.#alive) throw new MayflyError('E_GUEST_DIED', 'the machine is gone');
    this.#mute = true;
  }

  memory(): MachineMemory {
    const page = Buffer.alloc(4096, 'fake');
    return {
      ramBytes: 4096,
      base: '/t/ram',
      registers: async () => '',
      async *changed() {
        yield { numbers: Uint32Array.of(0), bytes: page };
      },
    };
  }

  async consoleTail(): Promise<string> {
    return this.#alive ? 'fake console' : '';
  }

  // ---- the agent ----------------------------------------------------------------------------------------------------

  say<N extends MessageName>(name: N, fields: Message<N>): void {
    this.#send(messages[name].type, 0, encodeMessage(name, fields));
  }

  #send(type: number, stream: number, payload: Buffer): void {
    if (this.#mute || !this.#alive) return;
    this.#port.write(encodeFrame({ type, sequence: this.#sequence++, stream, nonce: this.#nonce, payload }));
  }

  #receive(chunk: Buffer): void {
    if (!this.#alive) return;
    for (const frame of this.#decoder.push(chunk)) this.#handle(frame);
  }

  #handle({ type, stream, nonce, payload }: Frame): void {
    switch (type) {
      case frameTypes.DATA:
        if (stream === streams.stdin) this.#stdin.push(Buffer.from(payload));
        this.#send(frameTypes.CREDIT, stream, encodeCredit(payload.length));
        return;
      case frameTypes.CREDIT:
        this.#outflow(stream).grant(decodeCredit(payload));
        this.#pump();
        return;
      case frameTypes.END:
        if (stream === streams.code) this.#later(() => this.#prove());
        else this.#later(() => this.#run());
        return;
    }
    const message = decodeMessage(type, payload);
    switch (message.name) {
      case 'PREPARE':
        return this.#later(() => this.say('READY', { warm: 1 }));
      case 'ADOPT':
        this.#nonce = nonce;
        this.#sequence = 0;
        return this.#later(() => this.#adopt(message.fields));
      case 'CONFIGURE':
        this.#configuration = message.fields;
        return;
      case 'START':
        this.deliveries += 1;
        return;
      default:
    }
  }

  #later(what: () => void): void {
    this.#options.clock.after(this.#options.delay(), () => {
      if (this.#alive && this.#resumed) what();
    });
  }

  #adopt({ clockUnixNanos, machineId, bootId, hostname }: Message<'ADOPT'>): void {
    const does = this.#faultAt('adopt');
    if (this.#disaster(does)) return;
    if (does === 'fault') return this.say('FAULT', { code: 'E_CLONE_NOT_UNIQUE', message: 'RNDADDENTROPY failed' });
    this.say('ADOPTED', {
      reseeded: does === 'not-reseeded' ? 0 : 1,
      clockUnixNanos: clockUnixNanos + (does === 'wrong-clock' ? 3_600_000_000_000n : 1_000n),
      machineId: does === 'same-identity' ? '0'.repeat(32) : machineId,
      bootId,
      hostname,
    });
  }

  #prove(): void {
    const does = this.#faultAt('configure');
    if (this.#disaster(does)) return;
    if (does === 'fault') return this.say('FAULT', { code: 'E_CLONE_FAILED', message: 'no cgroup' });
    const facts = this.#configuration === undefined ? [] : factsOf(this.#configuration);
    const pids = facts.findIndex((fact) => fact.startsWith('cgroup.pids.max'));
    if (does === 'weaker-limit') facts[pids] = 'cgroup.pids.max=max';
    if (does === 'extra-mount') facts.push('mount./host=9p rw');
    if (does === 'missing-fact') facts.pop();
    this.say('PROOF', { fact: facts });
  }

  // ---- the workload -------------------------------------------------------------------------------------------------

  #run(): void {
    const does = this.#faultAt('run');
    if (this.#disaster(does)) return;
    const stdin = Buffer.concat(this.#stdin);
    const exit = { exitCode: 0, signal: 0, cpuMicros: 900, memoryPeakBytes: 40_000_000, oomKills: 0, pidsMaxHits: 0 };
    let output = (this.#options.answer ?? echo)(stdin);
    if (does === 'throw') output = Buffer.from('{"ok":false,"phase":"call","error":{"name":"Error","message":"told"}}');
    if (does === 'not-json') output = Buffer.from('{"ok":true,"value":');
    if (does === 'oom') Object.assign(exit, { signal: 9, oomKills: 1 });
    if (does === 'exit') exit.exitCode = 3;
    if (does === 'oom' || does === 'exit') output = Buffer.alloc(0);
    if (does === 'flood') {
      // Past its window without waiting for credit.
      const payload = Buffer.alloc(limits.framePayloadBytesMax);
      for (let sent = 0; sent <= limits.streamWindowBytes; sent += payload.length) {
        this.#send(frameTypes.DATA, streams.stdout, payload);
      }
      return;
    }
    if (does === 'overrun') {
      this.#send(frameTypes.END, streams.output, encodeEnd({ totalBytes: 5, truncated: false }));
      return;
    }
    this.#unsent.push(
      { stream: streams.stdout, bytes: Buffer.from('a line of log\n'), truncated: false },
      { stream: streams.stderr, bytes: Buffer.from('a warning\n'), truncated: false },
      { stream: streams.output, bytes: output, truncated: false },
    );
    this.#exitMessage = exit;
    this.#pump();
  }

  #pump(): void {
    for (let next = this.#unsent[0]; next !== undefined; next = this.#unsent[0]) {
      const outflow = this.#outflow(next.stream);
      while (next.bytes.length > 0) {
        const part = next.bytes.subarray(0, Math.min(outflow.window, limits.framePayloadBytesMax));
        if (part.length === 0) return;
        this.#send(frameTypes.DATA, next.stream, part);
        outflow.sent(part.length);
        next.bytes = next.bytes.subarray(part.length);
      }
      const end = { totalBytes: outflow.sentBytes, truncated: next.truncated };
      this.#send(frameTypes.END, next.stream, encodeEnd(end));
      this.#unsent.shift();
    }
    if (this.#exitMessage !== undefined) this.say('EXIT', this.#exitMessage);
    this.#exitMessage = undefined;
  }

  #outflow(stream: number): Outflow {
    const known = this.#outflows.get(stream);
    if (known !== undefined) return known;
    const outflow = new Outflow(String(stream));
    this.#outflows.set(stream, outflow);
    return outflow;
  }

  // ---- faults -------------------------------------------------------------------------------------------------------

  #faultAt(moment: FakeFault['at']): FakeFault['does'] | undefined {
    return this.#fault?.at === moment ? this.#fault.does : undefined;
  }

  /** True when it has happened. */
  #disaster(does: FakeFault['does'] | undefined): boolean {
    switch (does) {
      case 'die':
        this.die();
        return true;
      case 'silence':
        this.#mute = true;
        return true;
      case 'halt':
        this.#mute = true;
        this.#halt.resolve('the fake guest stopped itself');
        return true;
      case 'garbage':
        if (this.#alive) this.#port.write(Buffer.from('these bytes are no frame of any version'));
        this.#mute = true;
        return true;
      case 'half-frame':
        if (this.#alive) this.#port.write(halfFrame(this.#sequence, this.#nonce));
        this.#mute = true;
        return true;
      default:
        return false;
    }
  }
}

function halfFrame(sequence: number, nonce: bigint): Buffer {
  const whole = encodeFrame({ type: frameTypes.PROOF, sequence, stream: 0, nonce, payload: Buffer.alloc(100) });
  return whole.subarray(0, 60);
}

/** A runtime that returns the event. */
function echo(stdin: Buffer): Buffer {
  // After the lines of the function and of the context.
  const event = stdin.subarray(stdin.indexOf(0x0a, stdin.indexOf(0x0a) + 1) + 1);
  return Buffer.concat([Buffer.from('{"ok":true,"value":'), event, Buffer.from('}')]);
}

/** An agent that has done all that it was asked for. */
function factsOf(configuration: Message<'CONFIGURE'>): string[] {
  const { uid, gid, filter, policy } = configuration;
  const kernel = { uid, gid, noNewPrivileges: true, capabilities: [], seccomp: { digest: digestOf(filter) } } as const;
  return expectedFacts({ limits: configuration, kernel }, policy);
}
