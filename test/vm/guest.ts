/**
 * A guest in the hands of a test: a fresh clone, driven over the bridge by the product's own session, or frame by frame
 * by a host that breaks the rules.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import type { Duplex } from 'node:stream';
import { encodeFrame, FrameDecoder } from '../../src/bridge/frame.ts';
import { decodeMessage, encodeMessage, messages } from '../../src/bridge/message.ts';
import type { AnyMessage, Message, MessageName } from '../../src/bridge/message.ts';
import { Session } from '../../src/bridge/session.ts';
import type { Adopted, CodeEntry, Configuration, Execution, Identity } from '../../src/bridge/session.ts';
import type { Template } from '../../src/clone/template.ts';
import type { DiskRates, Machine } from '../../src/clone/vmm/contract.ts';
import { within } from '../../src/core/time.ts';
import type { Broker } from '../../src/egress/contract.ts';
import { generateProfile } from '../../src/profile/generate.ts';
import { appArmorOf, filterOf } from '../../src/profile/kernel.ts';
import type { Profile } from '../../src/profile/profile.ts';
import { clock, mebibyte, workloadId } from './rig.ts';
import type { Rig } from './rig.ts';

export const granted = {
  memoryBytes: 256 * mebibyte, cpuQuotaMicros: 100_000, cpuPeriodMicros: 100_000, pids: 64, openFiles: 256,
  scratchBytes: 64 * mebibyte, stdoutBytes: mebibyte, stderrBytes: mebibyte, outputBytes: 6 * mebibyte,
};

/** Of a default profile: class compute, no network policy. */
export const { profile: defaultProfile } = generateProfile({
  request: { image: { name: 'any', digest: `sha256:${'0'.repeat(64)}` }, limits: {}, minimumIsolation: 'tcg' },
  codeBytes: 0,
});

/** What CONFIGURE says about the kernel. */
export async function kernelPolicy(template: Template, profile = defaultProfile): Promise<KernelPolicy> {
  return { policy: await template.compile(appArmorOf(profile)), filter: filterOf(profile) };
}

type KernelPolicy = Pick<Configuration, 'policy' | 'filter'>;

export interface Order {
  readonly argv?: readonly string[];
  readonly files?: readonly CodeEntry[];
  readonly stdin?: string | Buffer;
  readonly limits?: Partial<typeof granted>;
  readonly wallMillis?: number;
  readonly broker?: Broker;
  readonly env?: readonly string[];
  /** Whose kernel policy it runs under; a default one's unless given. */
  readonly profile?: Profile;
  /** Without limits unless given. */
  readonly disk?: DiskRates;
}

export interface Outcome extends Execution {
  readonly given: Identity;
  readonly adopted: Adopted;
  readonly facts: readonly string[];
  readonly out: string;
  readonly log: string;
  readonly text: string;
}

export function newIdentity(): Identity {
  const hex = (bytes: number): string => randomBytes(bytes).toString('hex');
  return {
    nonce: randomBytes(8).readBigUInt64LE() || 1n, entropy: randomBytes(64), clockUnixNanos: clock.wallNanos(),
    machineId: hex(16), bootId: randomUUID(), hostname: `t-${hex(4)}`,
  };
}

export function file(path: string, content: string | Buffer, mode = 0o644): CodeEntry {
  return { kind: 'file', path, mode, content: Buffer.from(content) };
}

export function script(...lines: string[]): Order {
  return { argv: ['/function/f.sh'], files: [file('f.sh', `#!/bin/sh\n${lines.join('\n')}\n`, 0o755)] };
}

export async function inClone<T>(rig: Rig, template: Template, work: (machine: Machine) => Promise<T>): Promise<T> {
  const machine = await rig.vmm.spawn(template.state);
  try {
    await machine.resume();
    return await work(machine);
  } finally {
    await machine.kill();
  }
}

/** One run, adopted, configured and executed. Rejects as the session does. */
export async function run(rig: Rig, template: Template, order: Order): Promise<Outcome> {
  return await inClone(rig, template, async (machine) => {
    const session = new Session({ transport: machine.bridge, clock });
    const given = newIdentity();
    const adopted = await session.adopt(given);
    if (order.disk !== undefined) await machine.limitDisk(order.disk);
    const argv = order.argv ?? [];
    const configuration: Configuration = {
      limits: { ...granted, ...order.limits }, uid: workloadId, gid: workloadId,
      ...(await kernelPolicy(template, order.profile)),
      argv, env: argv.length > 0 ? ['PATH=/usr/bin:/bin', 'HOME=/tmp', ...(order.env ?? [])] : [],
    };
    const facts = await session.configure(configuration, order.files ?? []);
    let [out, log] = ['', ''];
    const execution = await session.execute({
      stdin: Buffer.from(order.stdin ?? ''), wallMillis: order.wallMillis ?? 60_000,
      ...(order.broker === undefined ? {} : { broker: order.broker }),
      onStdout: (chunk) => { out += chunk.toString(); },
      onStderr: (chunk) => { log += chunk.toString(); },
    });
    return { ...execution, given, adopted, facts, out, log, text: execution.output.toString() };
  });
}

/** A host without manners: sends what it is told and hands over the messages that come back. */
export class RawHost {
  readonly #bridge: Duplex;
  readonly #received: AnyMessage[] = [];
  readonly nonce = newIdentity().nonce;
  #sequence = 0;
  #wake = (): void => {};

  constructor(bridge: Duplex) {
    this.#bridge = bridge;
    const decoder = new FrameDecoder({ from: 'guest', nonce: this.nonce });
    bridge.on('data', (chunk: Buffer) => {
      for (const { type, stream, payload } of decoder.push(chunk)) {
        if (stream === 0) this.#received.push(decodeMessage(type, payload));
      }
      this.#wake();
    });
  }

  write(bytes: Buffer): void {
    this.#bridge.write(bytes);
  }

  frame(type: number, stream: number, payload: Buffer, nonce = this.nonce): Buffer {
    return encodeFrame({ type, stream, payload, sequence: this.#sequence++, nonce });
  }

  send<N extends MessageName>(name: N, fields: Message<N>): void {
    this.write(this.frame(messages[name].type, 0, encodeMessage(name, fields)));
  }

  adopt(): void {
    const { nonce: _nonce, clockUnixNanos, ...identity } = newIdentity();
    this.send('ADOPT', { ...identity, clockUnixNanos: BigInt(clockUnixNanos as bigint) });
  }

  /** The next message, within 20 seconds. */
  async next(): Promise<AnyMessage> {
    const waited = (async () => {
      while (this.#received.length === 0) await new Promise<void>((resolve) => { this.#wake = resolve; });
      return this.#received.shift() as AnyMessage;
    })();
    return await within(clock, 20_000, waited, () => new Error('the guest says nothing'));
  }
}
