/**
 * A Clone is a machine that has proved to be its own: spawned from a template's memory, resumed, given its entropy,
 * clock and names, and found to report exactly those. Anything less is not a Clone, and stays in the ledger to be
 * released.
 */
import { Session } from '../bridge/session.ts';
import { MayflyError } from '../core/errors.ts';
import type { RunId } from '../core/ids.ts';
import type { Random } from '../core/random.ts';
import type { Clock } from '../core/time.ts';
import type { Proof, TimelineStage } from '../evidence/record.ts';
import type { Workload } from '../event/workload.ts';
import { diskRatesOf } from '../profile/facts.ts';
import type { Profile, SealedProfile } from '../profile/profile.ts';
import type { Ledger } from '../release/ledger.ts';
import { consoleDetail } from './console.ts';
import { compareIdentity, newIdentity } from './uniqueness.ts';
import type { Isolation, Machine, TemplateState, Vmm } from './vmm/contract.ts';

export interface Clone {
  readonly runId: RunId;
  /** What it was made from. */
  readonly template: CloneTemplate;
  readonly machine: Machine;
  /** Adopted: the next step is `configure`, unless it is `proved` already. */
  readonly session: Session;
  /** It waited in the pool, and what it is allowed was proved there. */
  readonly proved?: { readonly profileDigest: string; readonly proof: Proof; readonly loaded: boolean };
}

export interface CloneOrder {
  readonly runId: RunId;
  readonly profile: SealedProfile;
  readonly workload: Workload;
  readonly ledger: Ledger;
  /** From 1. */
  readonly attempt: number;
}

/** What a clone is made from; clone/template.ts finds or builds it. */
interface CloneTemplate {
  readonly key: string;
  readonly state: TemplateState;
  /** Rejects with E_TEMPLATE_TAMPERED unless its files are as they were sealed. */
  check(): Promise<void>;
  /** An AppArmor policy for the guest's kernel. Rejects with E_POLICY_COMPILE. */
  compile(text: string): Promise<Buffer>;
}

export interface CloneOptions {
  readonly vmm: Vmm;
  readonly clock: Clock;
  readonly random: Random;
  /** The template for a profile's image and shape; may take seconds when it has to be built. */
  readonly template: (profile: Profile, signal: AbortSignal) => Promise<CloneTemplate>;
}

export interface CloneContext {
  readonly signal: AbortSignal;
  timed<T>(stage: TimelineStage, work: () => T | Promise<T>): Promise<T>;
}

/** Rejects with E_CLONE_FAILED, E_CLONE_NOT_UNIQUE, E_TEMPLATE_*, a guest's code, or E_INTERRUPTED on the signal. */
export async function makeClone(options: CloneOptions, order: CloneOrder, context: CloneContext): Promise<Clone> {
  const { vmm, clock, random, template: templateFor } = options;
  const { signal, timed } = context;
  const { profile } = order.profile;
  requireIsolation(vmm.isolation, profile);
  const template = await timed('template', () => templateFor(profile, signal));
  throwIfInterrupted(signal);
  await order.ledger.announce(order.attempt);
  const machine = await timed('clone', async () => {
    await template.check();
    return await vmm.spawn(template.state);
  });
  const session = new Session({ transport: machine.bridge, clock });
  await holdMachine(order.ledger, machine, session);
  const clone: Clone = { runId: order.runId, template, machine, session };
  await guarded(clone, signal, async () => {
    await timed('restore', async () => {
      await machine.limitDisk(diskRatesOf(profile));
      await machine.resume();
    });
    await timed('uniqueness', () => adopt(clone, clock, random));
    // Only after the machine has mapped its memory: what it was made from must still be what was sealed.
    await template.check();
  });
  return clone;
}

function requireIsolation(isolation: Isolation, { isolation: { minimum } }: Profile): void {
  if (minimum === 'kvm' && isolation === 'tcg') {
    throw new MayflyError('E_ACCELERATOR', 'The profile asks for KVM, and this machine has software emulation only.');
  }
}

/** From here on it is this ledger that the machine is released from. */
export async function holdMachine(ledger: Ledger, machine: Machine, session: Session): Promise<void> {
  const { pid, startTicks } = machine.identity;
  const taken = [
    ledger.hold({
      holding: { kind: 'machine', pid, startTicks: String(startTicks) },
      release: () => machine.kill(),
    }),
    ledger.hold({ holding: { kind: 'bridge', pid }, release: async () => session.close() }),
  ];
  await Promise.all(taken);
}

async function adopt({ session, runId }: Clone, clock: Clock, random: Random): Promise<void> {
  const { nonce, adopt: given } = newIdentity({ clock, random, runId });
  const sent = clock.now();
  const reply = await session.adopt({ nonce, ...given });
  const differences = compareIdentity(given, reply, clock.now() - sent);
  if (differences.length > 0) throw new MayflyError('E_CLONE_NOT_UNIQUE', differences.join('; '));
}

/**
 * Work with a clone that ends when it has to: on the signal and when the guest stops, the session is closed and the
 * machine killed (unless `kill` is false), so that nothing waits for a guest that cannot answer. A guest's failure
 * gets its console's end.
 */
export async function guarded<T>(
  clone: Clone,
  signal: AbortSignal,
  work: () => Promise<T>,
  { kill }: { readonly kill: boolean } = { kill: true },
): Promise<T> {
  const { machine, session } = clone;
  let halted: string | undefined;
  let over = false;
  const stop = (): void => {
    session.close();
    if (kill) machine.kill().catch(() => {});
  };
  void machine.halted.then((reason) => {
    if (over) return;
    halted = reason;
    session.close();
  });
  signal.addEventListener('abort', stop, { once: true });
  try {
    if (signal.aborted) stop();
    throwIfInterrupted(signal);
    return await work();
  } catch (thrown) {
    throwIfInterrupted(signal);
    throw await explain(machine, halted, thrown);
  } finally {
    over = true;
    signal.removeEventListener('abort', stop);
  }
}

async function explain(machine: Machine, halted: string | undefined, thrown: unknown): Promise<unknown> {
  if (!(thrown instanceof MayflyError)) return thrown;
  const silent = thrown.code === 'E_GUEST_DIED' || thrown.code === 'E_GUEST_SILENT' || thrown.code === 'E_INTERRUPTED';
  if (halted === undefined && !silent) return thrown;
  const detail = consoleDetail(await machine.consoleTail().catch(() => ''));
  if (halted === undefined) return new MayflyError(thrown.code, thrown.message, { cause: thrown, ...detail });
  return new MayflyError('E_GUEST_DIED', halted, { cause: thrown, ...detail });
}

function throwIfInterrupted(signal: AbortSignal): void {
  if (signal.aborted) throw new MayflyError('E_INTERRUPTED', 'The run was interrupted.');
}
