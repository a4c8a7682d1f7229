/**
 * Everything that a checkout needs before it can run an event: packages of the system, guest kernel, agent, base images.
 *
 * A step is skipped when what it makes is in the store, intact, and was built from the same inputs; so running set-up
 * again costs nothing, and an interrupted or damaged set-up is repaired by running it again. One set-up at a time.
 */
import { chmod, mkdir, readdir, rm, statfs, access, realpath } from 'node:fs/promises';
import { join } from 'node:path';
import { MayflyError } from '../../src/core/errors.ts';
import { createDisk } from '../../src/core/disk.ts';
import type { Clock } from '../../src/core/time.ts';
import { isoTime } from '../../src/core/time.ts';
import { openStore } from '../../src/image/store.ts';
import { openApt } from './apt.ts';
import { agentStep, initramfsStep } from './guest.ts';
import { imageStep } from './image.ts';
import { kernelStep } from './kernel.ts';
import { installPackages, missingPackages, packagesMissing, rootCommand } from './packages.ts';
import { readRecipes } from './recipe.ts';
import type { Say, Step, Workshop } from './workshop.ts';

export interface SetUpOptions {
  /** The checkout. */
  readonly root: string;
  /** MAYFLY_HOME, absolute. */
  readonly home: string;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly euid: number;
  /** Absolute path of the running Node. */
  readonly execPath: string;
  /** Names of steps; all when absent. */
  readonly only?: readonly string[];
  /** Reads every artefact completely instead of trusting files that look untouched. */
  readonly verify?: boolean;
  /** Builds again even what is current: newer packages of the distribution come in. */
  readonly rebuild?: boolean;
}

export interface StepReport {
  readonly step: string;
  readonly outcome: 'current' | 'built';
  readonly millis: number;
  readonly artefacts: readonly { readonly name: string; readonly digest: string; readonly bytes: number }[];
}

/** Shows one step: calls `work`, passes on what it says and what it returns. */
export type ShowStep = (
  title: string,
  work: (say: Say) => Promise<StepReport>,
) => Promise<void>;

/** Fresh set-up, bytes: three images of at most 140 MB, each once as folder and once as file, and packages. */
const DISK_BYTES = 1024 * 1024 * 1024;
/** Waiting for another set-up on the same home, ms; a whole one takes about a minute. */
const LOCK_MILLIS_MAX = 15 * 60_000;

/** Names of all steps, in order. */
export async function stepNames(root: string): Promise<string[]> {
  return ['packages', 'kernel', 'agent', 'initramfs', ...(await readRecipes(root)).map(({ name }) => `image-${name}`)];
}

/** Rejects with E_USAGE, E_PACKAGES_MISSING, E_DISK_SPACE, E_SETUP_MISSING and E_INTERRUPTED. */
export async function setUp(options: SetUpOptions, show: ShowStep): Promise<readonly StepReport[]> {
  const { root, home, clock, signal, euid } = options;
  if (process.arch !== 'x64') throw new MayflyError('E_SETUP_MISSING', `Mayfly runs on x86-64, not on ${process.arch}.`);
  const known = await stepNames(root);
  const unknown = options.only?.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new MayflyError('E_USAGE', `There is no step ${unknown}; there are ${known.join(', ')}.`);
  const wanted = (name: string): boolean => options.only === undefined || options.only.includes(name);

  await openHome(home);
  const release = await createDisk().lock(join(home, 'setup.lock'), LOCK_MILLIS_MAX);
  const scratch = join(home, 'setup.tmp');
  const reports: StepReport[] = [];
  const step = async (title: string, work: (say: Say) => Promise<StepReport>): Promise<void> => {
    await show(title, async (say) => {
      if (signal.aborted) throw new MayflyError('E_INTERRUPTED', 'Set-up was interrupted.');
      const report = await work(say);
      reports.push(report);
      return report;
    });
  };
  try {
    // Whatever is there belongs to a set-up that was killed: the lock says that none is running.
    await rm(scratch, { recursive: true, force: true });
    await mkdir(scratch, { mode: 0o755 });
    const asRoot = await rootCommand(euid, signal);
    const store = openStore(home);
    const nodeBinary = await findNode(root, options.execPath);
    const now = (): string => isoTime(clock.wallNanos());
    const workshop: Workshop = { root, home, store, scratch, signal, now, nodeBinary };
    const apt = openApt({ cache: join(home, 'cache'), asRoot, signal });
    if (wanted('packages')) await step('System packages', (say) => providePackages(options, asRoot, say));
    const recipes = await readRecipes(root);
    const steps = [kernelStep(apt), agentStep, initramfsStep, ...recipes.map((recipe) => imageStep(recipe, apt))];
    for (const todo of steps) {
      if (wanted(todo.name)) await step(todo.title, (say) => provide(todo, workshop, options, say));
    }
    return reports;
  } finally {
    await rm(scratch, { recursive: true, force: true });
    await release();
  }
}

async function providePackages(
  { clock, signal }: SetUpOptions,
  asRoot: readonly string[] | undefined,
  say: Say,
): Promise<StepReport> {
  const began = clock.now();
  const missing = await missingPackages(signal);
  if (missing.length > 0) {
    await installPackages(missing, asRoot, signal, say);
    const still = await missingPackages(signal);
    if (still.length > 0) throw packagesMissing(still);
  }
  const outcome = missing.length > 0 ? 'built' : 'current';
  return { step: 'packages', outcome, millis: clock.now() - began, artefacts: [] };
}

async function provide(step: Step, workshop: Workshop, options: SetUpOptions, say: Say): Promise<StepReport> {
  const began = options.clock.now();
  const inputs = await step.inputs(workshop);
  const current = options.rebuild !== true && (await isCurrent(step, workshop, inputs, options.verify === true));
  if (!current) {
    await requireSpace(workshop.home);
    await step.build(workshop, inputs, say);
  }
  const artefacts = [];
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
    if (!(await store.trusted(artefact))) await store.trust(artefact);
  }
  return true;
}

/** Other uids (the VMMs') may pass through to the blobs; only the owner sees what is in it. */
async function openHome(home: string): Promise<void> {
  try {
    await mkdir(home, { recursive: true, mode: 0o711 });
    if ((await readdir(home)).length === 0) await chmod(home, 0o711);
  } catch (cause) {
    throw new MayflyError('E_SETUP_MISSING', `${home} cannot be used: ${(cause as Error).message}`, { cause });
  }
}

async function requireSpace(home: string): Promise<void> {
  const { bavail, bsize } = await statfs(home);
  if (bavail * bsize >= DISK_BYTES) return;
  const free = Math.floor((bavail * bsize) / (1024 * 1024));
  throw new MayflyError('E_DISK_SPACE', `Set-up needs 1024 MiB free in ${home}, there are ${free} MiB.`);
}

/** The checkout's Node, or the one that runs this. */
async function findNode(root: string, execPath: string): Promise<string> {
  const own = join(root, 'node_modules/node/bin/node');
  try {
    await access(own);
    return await realpath(own);
  } catch {
    return execPath;
  }
}
