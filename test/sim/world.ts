/**
 * A whole host in memory: clock, randomness, disk, processes and machines, all from one seed. Time stands still until
 * everything that can happen now has happened, then jumps to the next timer: a run of 30 s takes a millisecond.
 */
import { generateKeyPairSync, sign } from 'node:crypto';
import { createFake } from '../../src/clone/vmm/fake.ts';
import type { FakeFault, FakeVmm } from '../../src/clone/vmm/fake.ts';
import { createStages, reclaimAbandoned } from '../../src/compose.ts';
import type { ComposeOptions } from '../../src/compose.ts';
import type { Disk } from '../../src/core/disk.ts';
import type { Random } from '../../src/core/random.ts';
import type { Clock } from '../../src/core/time.ts';
import type { Network } from '../../src/egress/broker.ts';
import type { Workload } from '../../src/event/workload.ts';
import { keyIdOf } from '../../src/image/envelope.ts';
import type { PublicKeys, Signer } from '../../src/image/envelope.ts';
import type { RunRequest, Stages } from '../../src/stages.ts';
import type { Processes } from '../../src/release/processes.ts';

export const HOME = '/home/mayfly';

const { privateKey, publicKey } = generateKeyPairSync('ed25519');
const signer: Signer = { keyId: keyIdOf(publicKey), sign: (message) => sign(null, message, privateKey) };
/** What may have signed evidence. */
export const evidenceKeys: PublicKeys = new Map([[signer.keyId, publicKey]]);

/** No simulated function goes anywhere. */
const noNetwork: Network = {
  resolve: () => Promise.reject(new Error('there is no network here')),
  dial: () => { throw new Error('there is no network here'); },
};

// ---- randomness -----------------------------------------------------------------------------------------------------

/** mulberry32: small, and the same everywhere. */
export class Seeded implements Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** In [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  below(bound: number): number {
    return Math.floor(this.next() * bound);
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }

  bytes(size: number): Buffer {
    return Buffer.from(Array.from({ length: size }, () => this.below(256)));
  }
}

// ---- time -----------------------------------------------------------------------------------------------------------

interface Timer {
  readonly at: number;
  readonly order: number;
  readonly fire: () => void;
}

export class SimulatedClock implements Clock {
  #now: number;
  #order = 0;
  #timers: Timer[] = [];

  constructor(start = 0) {
    this.#now = start;
  }

  now(): number {
    return this.#now;
  }

  wallNanos(): bigint {
    return 1_732_446_000_000_000_000n + BigInt(Math.round(this.#now * 1e6));
  }

  after(millis: number, fire: () => void): () => void {
    const timer = { at: this.#now + Math.max(0, millis), order: this.#order++, fire };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((each) => each !== timer);
    };
  }

  get pending(): number {
    return this.#timers.length;
  }

  /** Runs the world until `work` has settled. Throws when nothing can happen any more and it has not. */
  async run<T>(work: Promise<T>): Promise<T> {
    await this.runUntil(work, () => false);
    return await work;
  }

  /** Runs the world until `work` has settled (true), or `stop` says so. */
  async runUntil(work: Promise<unknown>, stop: () => boolean): Promise<boolean> {
    let settled = false;
    work.then(() => { settled = true; }, () => { settled = true; });
    for (let steps = 0; ; steps++) {
      await quiet();
      if (settled) return true;
      if (stop()) return false;
      if (steps > 100_000) throw new Error(`simulation: no end after ${this.#now} ms`);
      const next = this.#timers.toSorted((a, b) => a.at - b.at || a.order - b.order)[0];
      if (next === undefined) throw new Error(`simulation: everything waits and nothing is coming (${this.#now} ms)`);
      this.#timers = this.#timers.filter((each) => each !== next);
      this.#now = Math.max(this.#now, next.at);
      next.fire();
    }
  }
}

/** Streams and promises hand over in turns of the event loop: after this many, nothing is on its way. */
async function quiet(): Promise<void> {
  for (let turn = 0; turn < 8; turn++) await new Promise((resolve) => setImmediate(resolve));
}

// ---- disk -----------------------------------------------------------------------------------------------------------

export type DiskCall = keyof Disk;

/** Files by path. `fail` is asked before every call: what share of an append's bytes it leaves when it fails. */
export class MemoryDisk implements Disk {
  readonly files = new Map<string, Buffer>();
  readonly folders = new Set<string>();
  readonly locks = new Map<string, Promise<void>>();
  calls = 0;
  /** Undefined: the call works. Otherwise it fails, after 0 to 1 of an append's bytes. */
  fail: (call: DiskCall, number: number) => number | undefined = () => undefined;
  /** The process is gone: what it still tries has no effect, and no answer. */
  frozen = false;

  async read(path: string, bytesMax: number): Promise<Buffer> {
    await this.#call('read');
    const bytes = this.files.get(path);
    if (bytes === undefined) throw fault('ENOENT', path);
    if (bytes.length > bytesMax) throw fault('EFBIG', path);
    return Buffer.from(bytes);
  }

  async tail(path: string, bytesMax: number): Promise<{ size: number; bytes: Buffer }> {
    await this.#call('tail');
    const bytes = this.files.get(path) ?? Buffer.alloc(0);
    return { size: bytes.length, bytes: Buffer.from(bytes.subarray(Math.max(0, bytes.length - bytesMax))) };
  }

  async append(path: string, bytes: Buffer): Promise<void> {
    await this.#call('append', (share) => this.#write(path, bytes.subarray(0, Math.floor(bytes.length * share))));
    this.#write(path, bytes);
  }

  #write(path: string, bytes: Buffer): void {
    if (bytes.length > 0) this.files.set(path, Buffer.concat([this.files.get(path) ?? Buffer.alloc(0), bytes]));
  }

  async *chunks(path: string): AsyncGenerator<Buffer> {
    await this.#call('chunks');
    const bytes = this.files.get(path);
    if (bytes === undefined) throw fault('ENOENT', path);
    yield Buffer.from(bytes);
  }

  async replace(path: string, bytes: Buffer): Promise<void> {
    await this.#call('replace');
    this.files.set(path, Buffer.from(bytes));
  }

  async truncate(path: string, size: number): Promise<void> {
    await this.#call('truncate');
    this.files.set(path, (this.files.get(path) ?? Buffer.alloc(0)).subarray(0, size));
  }

  async makeFolder(path: string): Promise<void> {
    await this.#call('makeFolder');
    this.folders.add(path);
  }

  async list(path: string): Promise<string[]> {
    await this.#call('list');
    const names = [...this.folders, ...this.files.keys()]
      .filter((each) => each.startsWith(`${path}/`))
      .map((each) => each.slice(path.length + 1).split('/')[0] as string);
    return [...new Set(names)].sort();
  }

  async exists(path: string): Promise<boolean> {
    await this.#call('exists');
    return this.folders.has(path) || this.files.has(path);
  }

  async remove(path: string): Promise<void> {
    await this.#call('remove');
    const inside = (each: string): boolean => each === path || each.startsWith(`${path}/`);
    for (const each of [...this.files.keys()].filter(inside)) this.files.delete(each);
    for (const each of [...this.folders].filter(inside)) this.folders.delete(each);
  }

  async lock(path: string): Promise<() => Promise<void>> {
    await this.#call('lock');
    for (let holder = this.locks.get(path); holder !== undefined; holder = this.locks.get(path)) await holder;
    const held = Promise.withResolvers<void>();
    this.locks.set(path, held.promise);
    return async () => {
      this.locks.delete(path);
      held.resolve();
    };
  }

  async #call(call: DiskCall, partly: (share: number) => void = () => {}): Promise<void> {
    this.calls += 1;
    const share = this.frozen ? undefined : this.fail(call, this.calls);
    if (this.frozen) await new Promise(() => {});
    if (share === undefined) return;
    partly(share);
    throw fault('EIO', `told to fail at ${call}`);
  }
}

function fault(code: string, what: string): Error {
  return Object.assign(new Error(`${code}: ${what}`), { code });
}

// ---- the host -------------------------------------------------------------------------------------------------------

export interface WorldOptions {
  readonly seed?: number;
  readonly fault?: (machine: number) => FakeFault | undefined;
  /** Given a world that has died before (kill -9): its disk and machines are still there. */
  readonly after?: World;
}

/** Long enough for a folder that nobody has finished to be nobody's. */
const BETWEEN_LIVES_MILLIS = 3_600_000;

export class World {
  readonly clock: SimulatedClock;
  readonly random: Seeded;
  readonly disk: MemoryDisk;
  readonly vmm: FakeVmm;
  /** Machines of this and of earlier lives. */
  readonly machines: FakeVmm['machines'][number][];
  readonly options: ComposeOptions;
  readonly stages: Stages;
  readonly #pid: number;
  #dead = false;

  constructor({ seed = 1, fault = () => undefined, after }: WorldOptions = {}) {
    this.clock = new SimulatedClock(after === undefined ? 0 : after.clock.now() + BETWEEN_LIVES_MILLIS);
    this.random = new Seeded(seed);
    this.disk = new MemoryDisk();
    for (const [path, bytes] of after?.disk.files ?? []) this.disk.files.set(path, bytes);
    for (const path of after?.disk.folders ?? []) this.disk.folders.add(path);
    this.#pid = after === undefined ? 501 : after.#pid + 1;
    const delays = new Seeded(seed + 1);
    this.vmm = createFake({ clock: this.clock, delay: () => 1 + delays.below(3), fault });
    this.machines = after?.everyMachine() ?? [];
    this.options = {
      home: HOME,
      clock: this.clock,
      random: this.random,
      disk: this.disk,
      processes: this.processes,
      vmm: this.vmm,
      owner: { pid: this.#pid, startTicks: '7', bootId: 'boot' },
      template: async ({ image, shape }) => ({
        key: 'fake',
        state: {
          folder: '/t', kernel: '/k', initramfs: '/i', baseImage: image.name, ramBytes: shape.ramBytes, ram: '/t/ram',
          state: Buffer.alloc(1),
        },
        check: async () => {},
        compile: async (text) => Buffer.from(text),
      }),
      network: noNetwork,
      origin: ({ image }) => ({
        isolation: 'fake', vmm: 'fake 1', kernel: 'none', agent: 'none',
        imageName: image.name, imageDigest: image.digest,
      }),
      signer,
      snapshotBudgetBytes: 0,
    };
    this.stages = createStages(this.options);
  }

  everyMachine(): FakeVmm['machines'][number][] {
    return [...this.machines, ...this.vmm.machines];
  }

  readonly processes: Processes = {
    startTicks: async (pid) => {
      if (pid === this.#pid && !this.#dead) return 7n;
      return this.everyMachine().find((each) => each.alive && each.identity.pid === pid)?.identity.startTicks;
    },
    kill: (pid) => this.everyMachine().find(({ identity }) => identity.pid === pid)?.die(),
    bootId: async () => 'boot',
  };

  /**
   * kill -9 of Mayfly, or its end: what it still tries has no effect. Its machines live on unless their parent-death
   * signal works; reclaim is the guarantee.
   */
  die({ deathSignal }: { readonly deathSignal: boolean }): void {
    this.#dead = true;
    this.disk.frozen = true;
    if (deathSignal) for (const machine of this.everyMachine()) machine.die();
  }

  get dead(): boolean {
    return this.#dead;
  }

  reclaim(): ReturnType<typeof reclaimAbandoned> {
    const wait = (millis: number): Promise<void> => new Promise((resolve) => this.clock.after(millis, resolve));
    const { disk, processes, clock } = this;
    return clock.run(reclaimAbandoned({ home: HOME, disk, processes, clock, wait, signer: async () => signer }));
  }
}

export function requestOf(changes: Partial<RunRequest> = {}): RunRequest {
  const workload: Workload = {
    kind: 'runtime',
    handler: '/function/h.mjs',
    entries: [{ kind: 'file', path: 'h.mjs', mode: 0o644, content: Buffer.from('export default (event) => event') }],
  };
  return {
    image: { name: 'node', digest: `sha256:${'a'.repeat(64)}` },
    limits: {},
    minimumIsolation: 'tcg',
    workload,
    event: Buffer.from('{"n":1}'),
    ...changes,
  };
}
