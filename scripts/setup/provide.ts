/** Brings what one step makes up to date, or finds that it is. */
import { statfs } from 'node:fs/promises';
import { MayflyError } from '../../src/core/errors.ts';
import type { Clock } from '../../src/core/time.ts';
import type { Say, Step, Workshop } from './workshop.ts';

export interface StepReport {
  readonly step: string;
  readonly outcome: 'current' | 'built';
  readonly millis: number;
  readonly artefacts: readonly { readonly name: string; readonly digest: string; readonly bytes: number }[];
}

export interface ProvideOptions {
  readonly clock: Clock;
  /** Reads every artefact completely instead of trusting files that look untouched. */
  readonly verify: boolean;
  /** Builds again also what is current. */
  readonly rebuild: boolean;
}

/** Free space before anything is built, bytes. Measured need of a fresh set-up: 340 MB, 230 of them stay. */
const FREE_BYTES_MIN = 512 * 1024 * 1024;

/** Rejects with E_DISK_SPACE, E_SETUP_MISSING and E_INTERRUPTED. */
export async function provide(step: Step, workshop: Workshop, options: ProvideOptions, say: Say): Promise<StepReport> {
  const began = options.clock.now();
  const inputs = await step.inputs(workshop);
  const current = !options.rebuild && (await isCurrent(step, workshop, inputs, options.verify));
  if (!current) {
    await requireSpace(workshop.home);
    await step.build(workshop, inputs, say).catch((thrown: unknown) => {
      throw withoutSpace(thrown, workshop.home);
    });
  }
  const artefacts: { name: string; digest: string; bytes: number }[] = [];
  for (const name of step.makes) {
    const artefact = await workshop.store.find(name);
    if (artefact === undefined) throw new Error(`${step.name} did not make ${name}`);
    artefacts.push({ name, digest: artefact.digest, bytes: artefact.bytes });
  }
  const millis = options.clock.now() - began;
  return { step: step.name, outcome: current ? 'current' : 'built', millis, artefacts };
}

async function isCurrent(step: Step, { store }: Workshop, inputs: string, verify: boolean): Promise<boolean> {
  for (const name of step.makes) {
    const artefact = await store.find(name);
    if (artefact === undefined || artefact.inputs !== inputs) return false;
    if (!(await store.intact(artefact, verify ? 'full' : 'quick'))) return false;
    // A home that was copied: its files are good, and need not be read again every time.
    if (!(await store.trusted(artefact))) await store.trust(artefact);
  }
  return true;
}

async function requireSpace(home: string): Promise<void> {
  const { bavail, bsize } = await statfs(home);
  if (bavail * bsize >= FREE_BYTES_MIN) return;
  const mebibytes = (bytes: number): number => Math.floor(bytes / (1024 * 1024));
  const needed = mebibytes(FREE_BYTES_MIN);
  throw new MayflyError(
    'E_DISK_SPACE',
    `Set-up needs ${needed} MiB free in ${home}, there are ${mebibytes(bavail * bsize)} MiB.`,
  );
}

/** The disk may also fill up while a step is at work, and the program that noticed may be somebody else's. */
function withoutSpace(thrown: unknown, home: string): unknown {
  const text = thrown instanceof MayflyError ? `${thrown.detail}` : String(thrown);
  if (!/ENOSPC|No space left on device/.test(text)) return thrown;
  return new MayflyError('E_DISK_SPACE', `The file system of ${home} is full.`, { cause: thrown });
}
